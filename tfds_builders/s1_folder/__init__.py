"""Any folder of Sentinel-1 GeoTIFFs, cut into patches."""
