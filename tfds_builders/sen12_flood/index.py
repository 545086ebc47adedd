"""Sequences and images as S1list.json describes them."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders.bad_files import BadFile, BadFilesError
from tfds_builders.sen12_flood.archive import Source, product_name, read, relative_orbit, time_of

LIST = "S1list.json"
PASSES = {"A": "ASCENDING", "D": "DESCENDING"}
WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
MAX_NAME_LENGTH = 200
"""Characters that the name of a file may have."""
MAX_DIGITS = 9
"""Digits that the number of an image may have."""


class Image(NamedTuple):
    """A Sentinel-1 image of a sequence, as the list describes it.

    Attributes:
      sequence: id of its sequence.
      product: name of the Sentinel-1 product that it is cut from.
      flooded: label; by the labelling rule, True from the first flood of the sequence on.
      full: True if the image covers the whole grid of the sequence; None where not stated.
      time: acquisition time, UTC; None where unknown.
      orbit_pass: "ASCENDING", "DESCENDING", or "" where unknown.
      relative_orbit: 1 to 175; 0 where unknown.
    """

    sequence: str
    product: str
    flooded: bool
    full: bool | None
    time: datetime | None
    orbit_pass: str
    relative_orbit: int

    @property
    def id(self) -> str:
        """Id of the record."""
        return f"{self.sequence}/{self.product}"


def read_list(source: Source) -> dict[str, dict[str, Any]]:
    """Return the entries of the list by id of their sequence.

    Raises:
      InputError: the file is not a JSON object with at least one sequence.
    """
    try:
        values = json.loads(read(source).decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise TypeError(f"found a {type(values).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, BadFilesError):
            raise
        raise InputError(
            f"{source}: found no usable JSON ({first_line(error)}), expected a sequence for every "
            "id: copy the file again"
        ) from error
    sequences = {str(key): value for key, value in values.items() if isinstance(value, dict)}
    if not sequences:
        raise InputError(f"{source}: found no sequence in it, expected one for every id")
    return sequences


def images_of(
    sequence: str, entries: Mapping[str, Any], source: Source, *, needs: tuple[str, ...] = ()
) -> tuple[list[Image], list[BadFile]]:
    """Parse the images of a sequence in the order of their numbers.

    Args:
      sequence: id of the sequence.
      entries: its entry in the list: images under numbers, other facts under other keys.
      source: the list, for messages.
      needs: fields of `Image` that must be known.

    Returns:
      The images, and a problem for each entry that cannot be used.
    """
    keys = [key for key, entry in entries.items() if _is_image_entry(key, entry)]
    numbers = sorted((key for key in keys if _is_number(key)), key=int)
    images: dict[str, Image] = {}
    problems = [
        BadFile(
            str(source),
            f"image {key[:50]!r} of sequence {sequence}: found no number, expected one of "
            f"{MAX_DIGITS} digits at most: correct the list",
        )
        for key in keys
        if not _is_number(key)
    ]
    if not keys:
        problems.append(
            BadFile(
                str(source), f"sequence {sequence} has no image under a number: correct the list"
            )
        )
    for number in numbers:
        try:
            image = _image(sequence, entries[number], needs)
            first = images.setdefault(image.product.lower(), image)
            if first.flooded != image.flooded:
                raise ValueError(f"{image.product} is both flooded and not")
        except (ValueError, TypeError, KeyError) as error:
            problems.append(
                BadFile(
                    str(source),
                    f"image {number} of sequence {sequence}: {_reason(error)}: correct the list",
                )
            )
    return list(images.values()), problems


def _is_number(key: str) -> bool:
    return key.strip().isdecimal() and len(key.strip()) <= MAX_DIGITS


def _is_image_entry(key: str, entry: Any) -> bool:
    """Return True for entries of images, numbered or not; False for "count", "folder"."""
    described = isinstance(entry, dict) and any(str(name).upper() == "FILENAME" for name in entry)
    return key.strip().isnumeric() or described


def _reason(error: Exception) -> str:
    return f"found no key {error.args[0]}" if isinstance(error, KeyError) else str(error)


def _image(sequence: str, entry: Any, needs: tuple[str, ...]) -> Image:
    if not isinstance(entry, dict):
        raise TypeError(f"found {str(entry)[:50]!r}, expected its description")
    values = {str(key).upper().replace("_", "-").replace(" ", "-"): entry[key] for key in entry}
    product = product_name(_text(values["FILENAME"], "filename"))
    image = Image(
        sequence,
        product,
        _flag(values["FLOODING"], "FLOODING"),
        _flag(values["FULL-DATA-COVERAGE"], "FULL-DATA-COVERAGE")
        if "FULL-DATA-COVERAGE" in values
        else None,
        time_of(product, values.get("DATE", "")),
        PASSES.get(str(values.get("ORBIT", "")).strip().upper()[:1], ""),
        relative_orbit(product),
    )
    for field, key in (("full", "FULL-DATA-COVERAGE"), ("orbit_pass", "orbit"), ("time", "date")):
        if field in needs and getattr(image, field) in (None, ""):
            if key.upper() not in values:
                raise KeyError(key)
            raise ValueError(f"found {str(values[key.upper()])[:50]!r} as {key}")
    return image


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_LENGTH:
        raise ValueError(f"found {str(value)[:50]!r} as {key}, expected a file's name")
    value.encode()  # raises UnicodeEncodeError, a ValueError, for lone surrogates
    return value


def _flag(value: Any, key: str) -> bool:
    word = str(value).strip().lower()
    if word not in WORDS:
        raise ValueError(f"found {str(value)[:50]!r} as {key}, expected true or false")
    return WORDS[word]
