"""Published constants shared by checkpoints and built datasets: band statistics and class names."""

from collections.abc import Iterable

from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.utils.errors import look_up

PUBLISHED_STATISTICS = {
    "bigearthnet_v1": Statistics(
        mean=(-19.2309, -12.5951),
        std=(3.1672, 2.9644),
        computed_on="BigEarthNet v1 as published with SAR-W-MixMAE: std is the mean of per-patch "
        "deviations, not the deviation over all pixels",
    ),
    "bigearthnet_v2": Statistics(
        mean=(-19.1966, -12.5144),
        std=(5.4501, 5.0019),
        computed_on="BigEarthNet v2 as published with SAR-W-MixMAE; which split and which "
        "deviation is not stated",
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


GROUP_OF_43: dict[str, int | None] = {
    "Continuous urban fabric": 0,
    "Discontinuous urban fabric": 0,
    "Industrial or commercial units": 1,
    "Road and rail networks and associated land": None,
    "Port areas": None,
    "Airports": None,
    "Mineral extraction sites": None,
    "Dump sites": None,
    "Construction sites": None,
    "Green urban areas": None,
    "Sport and leisure facilities": None,
    "Non-irrigated arable land": 2,
    "Permanently irrigated land": 2,
    "Rice fields": 2,
    "Vineyards": 3,
    "Fruit trees and berry plantations": 3,
    "Olive groves": 3,
    "Pastures": 4,
    "Annual crops associated with permanent crops": 3,
    "Complex cultivation patterns": 5,
    "Land principally occupied by agriculture, with significant areas of natural vegetation": 6,
    "Agro-forestry areas": 7,
    "Broad-leaved forest": 8,
    "Coniferous forest": 9,
    "Mixed forest": 10,
    "Natural grassland": 11,
    "Moors and heathland": 12,
    "Sclerophyllous vegetation": 12,
    "Transitional woodland/shrub": 13,
    "Beaches, dunes, sands": 14,
    "Bare rock": None,
    "Sparsely vegetated areas": 11,
    "Burnt areas": None,
    "Inland marshes": 15,
    "Peatbogs": 15,
    "Salt marshes": 16,
    "Salines": 16,
    "Intertidal flats": None,
    "Water courses": 17,
    "Water bodies": 17,
    "Coastal lagoons": 18,
    "Estuaries": 18,
    "Sea and ocean": 18,
}
"""Index into `CLASSES_19` of each CORINE class in CORINE order; None: not among the 19."""


def to_19(corine: Iterable[str]) -> list[str]:
    """Return the 19-class names of CORINE names, each once, in the order of `CLASSES_19`.

    Raises:
      InputError: a name is not one of the 43.
    """
    groups = {look_up(GROUP_OF_43, name, "CORINE label") for name in corine}
    return [name for index, name in enumerate(CLASSES_19) if index in groups]
