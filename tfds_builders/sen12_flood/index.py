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


class ListedImages(NamedTuple):
    """Images of a sequence in the list.

    Attributes:
      images: with a label, in the order of their numbers.
      unusable: reason by id of images that lack a fact which the rule of pairing needs. Their
        labels still decide which image is the first flooded one.
      problems: one for each entry that cannot be used.
      products: names in lower case of all products that the list names, usable or not.
    """

    images: list[Image]
    unusable: dict[str, str]
    problems: list[BadFile]
    products: set[str]


def images_of(
    sequence: str, entries: Mapping[str, Any], source: Source, *, needs: tuple[str, ...] = ()
) -> ListedImages:
    """Parse the images of a sequence; a product with contradictory labels has none.

    Args:
      sequence: id of the sequence.
      entries: its entry in the list: images under numbers, other facts under other keys.
      source: the list, for messages.
      needs: fields of `Image` that must be known.
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
    unusable: dict[str, str] = {}
    products: set[str] = set()
    contradictory: set[str] = set()
    for number in numbers:
        try:
            values = _values(entries[number])
            product = product_name(_text(values["FILENAME"], "filename"))
            products.add(product.lower())
            image = _image(sequence, product, values)
            first = images.setdefault(product.lower(), image)
            if first.flooded != image.flooded:
                contradictory.add(product.lower())
                raise ValueError(f"{product} is both flooded and not")
            for key in _lacks(image, needs):
                if first is image:
                    unusable[image.id] = f"{LIST} does not state its {key}"
                if key.upper() not in values:
                    raise KeyError(key)
                raise ValueError(f"found {str(values[key.upper()])[:50]!r} as {key}")
        except (ValueError, TypeError, KeyError) as error:
            problems.append(
                BadFile(
                    str(source),
                    f"image {number} of sequence {sequence}: {_reason(error)}: correct the list",
                )
            )
    kept = [image for product, image in images.items() if product not in contradictory]
    return ListedImages(kept, unusable, problems, products)


def _is_number(key: str) -> bool:
    return key.strip().isdecimal() and len(key.strip()) <= MAX_DIGITS


def _is_image_entry(key: str, entry: Any) -> bool:
    """Return True for entries of images, numbered or not; False for "count", "folder"."""
    described = isinstance(entry, dict) and any(str(name).upper() == "FILENAME" for name in entry)
    return key.strip().isnumeric() or described


def _reason(error: Exception) -> str:
    return f"found no key {error.args[0]}" if isinstance(error, KeyError) else str(error)


def _values(entry: Any) -> dict[str, Any]:
    """Return the facts of an image by key, in capitals and with hyphens."""
    if not isinstance(entry, dict):
        raise TypeError(f"found {str(entry)[:50]!r}, expected its description")
    return {str(key).upper().replace("_", "-").replace(" ", "-"): entry[key] for key in entry}


def _image(sequence: str, product: str, values: Mapping[str, Any]) -> Image:
    return Image(
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


KEYS = {"full": "FULL-DATA-COVERAGE", "orbit_pass": "orbit", "time": "date"}
"""Key in the list of the fields of `Image` that may be unknown."""


def _lacks(image: Image, needs: tuple[str, ...]) -> list[str]:
    """Return the keys of the needed fields that are unknown."""
    return [
        key for field, key in KEYS.items() if field in needs and getattr(image, field) in (None, "")
    ]


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
