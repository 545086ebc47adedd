"""Published constants shared by checkpoints and built datasets: band statistics and class names."""

from sar_mixmae_jax.data.metadata import Statistics

PUBLISHED_STATISTICS = {
    "bigearthnet_v1": Statistics(
        mean=(-19.2309, -12.5951),
        std=(3.1672, 2.9644),
        of="BigEarthNet v1 as published with SAR-W-MixMAE: std is the mean of per-patch "
        "deviations, not the deviation over all pixels",
    ),
    "bigearthnet_v2": Statistics(
        mean=(-19.1966, -12.5144),
        std=(5.4501, 5.0019),
        of="BigEarthNet v2 as published with SAR-W-MixMAE; which split and which deviation is "
        "not stated",
    ),
}
"""Statistics published with SAR-W-MixMAE, by data set."""

CLASSES_19 = (
    "Urban fabric",
    "Industrial or commercial units",
    "Arable land",
    "Permanent crops",
    "Pastures",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland, shrub",
    "Beaches, dunes, sands",
    "Inland wetlands",
    "Coastal wetlands",
    "Inland waters",
    "Marine waters",
)
"""Classes of BigEarthNet-19 in the order of the outputs of published classifiers."""
