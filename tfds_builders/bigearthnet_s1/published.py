"""The statistics published with SAR-W-MixMAE, which its encoders were trained with."""

from tfds_builders.records import Statistics

V1 = Statistics(
    mean=(-19.2309, -12.5951),
    std=(3.1672, 2.9644),
    of="BigEarthNet v1 as published with SAR-W-MixMAE: std is the mean of per-patch "
    "deviations, not the deviation over all pixels",
)

V2 = Statistics(
    mean=(-19.1966, -12.5144),
    std=(5.4501, 5.0019),
    of="BigEarthNet v2 as published with SAR-W-MixMAE; which split and which deviation is "
    "not stated",
)
