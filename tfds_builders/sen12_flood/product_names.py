"""Names of Sentinel-1 products and files: acquisition time, relative orbit, band."""

import re
from datetime import datetime
from typing import Any, NamedTuple

from tfds_builders.records import acquisition_time

ORBITS_PER_CYCLE = 175


ORBIT_OFFSETS = {"S1A": 73, "S1B": 27}
"""Of relative orbits. The archive is of 2018 and 2019; later satellites change theirs with time."""


BAND_FILE = re.compile(
    r"(?P<product>.+?)(_corrected)?_(?P<band>VV|VH)(_corrected)?\.tiff?", re.IGNORECASE
)


REFERENCE_FILE = re.compile(r"S2.*_B0?4\.tiff?", re.IGNORECASE)


ENDINGS = re.compile(r"(\.tiff?|_corrected|_VV|_VH)$", re.IGNORECASE)


ABSOLUTE_ORBIT = re.compile(r"(S1[A-Z])_.*_\d{8}T\d{6}_(\d{6})_", re.IGNORECASE)


DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d/%m/%Y", "%d-%m-%Y")


class BandFile(NamedTuple):
    """What the name of a band's file says.

    Attributes:
      product: name of the Sentinel-1 product.
      band: "VV" or "VH".
    """

    product: str
    band: str


def band_file(name: str) -> BandFile | None:
    """Reads the name of a file such as `PRODUCT_corrected_VV.tif`; None if it is no such file."""
    found = BAND_FILE.fullmatch(name)
    return BandFile(found["product"], found["band"].upper()) if found else None


def is_reference(name: str) -> bool:
    """Whether this is the name of band 4 of a Sentinel-2 image, such as `S2_2019-01-24_B04.tif`."""
    return bool(REFERENCE_FILE.fullmatch(name))


def product_name(filename: str) -> str:
    """The product of a `filename` in S1list.json, without folders, band and suffix."""
    name, before = filename.replace("\\", "/").rsplit("/", 1)[-1].strip(), ""
    while name != before:
        name, before = ENDINGS.sub("", name), name
    return name


def relative_orbit(name: str) -> int:
    """From 1 to 175, of the absolute orbit in a product's name; 0 where it cannot be derived."""
    found = ABSOLUTE_ORBIT.match(name)
    if not found or found[1].upper() not in ORBIT_OFFSETS:
        return 0
    return (int(found[2]) - ORBIT_OFFSETS[found[1].upper()]) % ORBITS_PER_CYCLE + 1


def time_of(name: str, date: Any) -> datetime | None:
    """When an image was acquired: by its product's name, else by `date`; None where unknown."""
    if text := acquisition_time(name):
        return datetime.fromisoformat(text)
    text = str(date).strip()
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
