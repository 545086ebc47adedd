"""Any folder of Sentinel-1 GeoTIFFs, cut into patches.

`raster_files` finds the files and reads their metadata, `layer_names` reads names, `file_selection`
leaves out what is no backscatter, and `scenes` groups the others into images of all bands.
`scene_reader` reads windows of a scene with the nodata of every band, `gcps` those of images with
ground control points, and `measures` warns about implausible ones. `label_masks` reads classes
of pixels, and `windows` finds the patches of a scene. `window_plan` plans the dataset and reads
records.
"""
