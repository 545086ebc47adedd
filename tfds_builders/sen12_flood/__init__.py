"""SEN12-FLOOD: sequences of Sentinel-1 images of places that were flooded, and pairs of them."""
