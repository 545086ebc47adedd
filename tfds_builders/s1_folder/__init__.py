"""Any folder of Sentinel-1 GeoTIFFs, cut into patches.

`raster_files` finds the files and reads their metadata, `scenes` groups them into images of all
bands, `windows` finds the patches of a scene, `window_plan` plans the dataset and reads records.
"""
