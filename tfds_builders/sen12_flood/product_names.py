"""Names of Sentinel-1 products and files: acquisition time, relative orbit, band."""

import re
from datetime import datetime
from typing import Any, NamedTuple

from tfds_builders.records import acquisition_time

ORBITS_PER_CYCLE = 175

ORBIT_OFFSETS = {"S1A": 73, "S1B": 27}
"""Offset of the relative orbit: (absolute - offset) mod 175 + 1.

Valid in 2018 and 2019, the years of the archive; other satellites are not derived.
"""
BAND_FILE = re.compile(
    r"(?P<product>.+?)(_corrected)?_(?P<band>VV|VH)(_corrected)?\.tiff?", re.IGNORECASE
)
REFERENCE_FILE = re.compile(r"S2.*_B0?4\.tiff?", re.IGNORECASE)
ENDINGS = re.compile(r"(\.tiff?|_corrected|_VV|_VH)$", re.IGNORECASE)
ABSOLUTE_ORBIT = re.compile(r"(S1[A-Z])_.*_\d{8}T\d{6}_(\d{6})_", re.IGNORECASE)
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d/%m/%Y", "%d-%m-%Y")


class BandFile(NamedTuple):
    """Parts of the name of a band file.

    Attributes:
      product: name of the Sentinel-1 product.
      band: "VV" or "VH".
    """

    product: str
    band: str


def band_file(name: str) -> BandFile | None:
    """Parse a file name such as `PRODUCT_corrected_VV.tif`; return None for other names."""
    match = BAND_FILE.fullmatch(name)
    return BandFile(match["product"], match["band"].upper()) if match else None


def is_reference(name: str) -> bool:
    """Return True for the name of Sentinel-2 band 4, such as `S2_2019-01-24_B04.tif`."""
    return bool(REFERENCE_FILE.fullmatch(name))


def product_name(filename: str) -> str:
    """Return the product of a `filename` in S1list.json, without folder, band and suffix."""
    name, before = filename.replace("\\", "/").rsplit("/", 1)[-1].strip(), ""
    while name != before:
        name, before = ENDINGS.sub("", name), name
    return name


def relative_orbit(name: str) -> int:
    """Return the relative orbit, 1 to 175, from the absolute orbit in a product name.

    Returns 0 where the name has no absolute orbit or the satellite is not in `ORBIT_OFFSETS`.
    """
    match = ABSOLUTE_ORBIT.match(name)
    if not match or match[1].upper() not in ORBIT_OFFSETS:
        return 0
    return (int(match[2]) - ORBIT_OFFSETS[match[1].upper()]) % ORBITS_PER_CYCLE + 1


def time_of(name: str, date: Any) -> datetime | None:
    """Return the acquisition time of an image, or None where it is unknown.

    Args:
      name: of the product, whose start time is taken where it has one.
      date: entry "date" of the list, used otherwise; one of `DATE_FORMATS` or ISO 8601.
    """
    if text := acquisition_time(name):
        return datetime.fromisoformat(text)
    text = str(date).strip()
    for date_format in DATE_FORMATS:
        try:
            return datetime.strptime(text, date_format)
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
