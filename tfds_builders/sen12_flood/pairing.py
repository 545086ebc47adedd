"""Rules that pair two dates of a sequence: as published, or chronological."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from tfds_builders.plan import Columns, Pairs
from tfds_builders.sen12_flood.index import Image

CHECKSUM = re.compile(r"_[0-9A-F]{4}$", re.IGNORECASE)
"""End of a product's name, by which two processings of one acquisition differ."""

REPROCESSED = "another processing of an image that is used"

SAME_DATATAKE = timedelta(hours=1)
"""Images closer in time are neighbouring slices of one datatake, not two dates."""

INDEX = ("zero_share",)
"""Features of the records that `make_pairs` reads, besides the id."""


class Pair(NamedTuple):
    """Two dates of a sequence.

    Attributes:
      before: image without flood.
      after: image that has the label of the pair.
    """

    before: Image
    after: Image


def published(images: Sequence[Image], usable: Collection[str]) -> list[Pair]:
    """Pair every dry image with every other image of the sequence, once.

    The dry image is `before`. Of two dry images it is the earlier one where both times are known,
    else the one that the list names first.

    Args:
      images: all images of the sequence, in the order of the list.
      usable: ignored; pairs with unusable images are counted and left out by `make_pairs`.
    """
    del usable
    pairs = []
    for number, dry in enumerate(images):
        for other_number, other in enumerate(images):
            done = not other.flooded and other_number <= number
            if dry.flooded or done or other is dry:
                continue
            later = not other.flooded and dry.time and other.time and other.time < dry.time
            pairs.append(Pair(other, dry) if later else Pair(dry, other))
    return pairs


def chronological(images: Sequence[Image], usable: Collection[str]) -> list[Pair]:
    """Pair every usable image with the latest usable dry image before it of the same geometry.

    Args:
      images: all images of the sequence.
      usable: ids of the images that may be in a pair.
    """
    ordered = sorted((i for i in images if i.id in usable and i.time), key=_time_order)
    pairs = []
    for image in ordered:
        before = [dry for dry in ordered if not dry.flooded and is_before(dry, image)]
        if before:
            pairs.append(Pair(before[-1], image))
    return pairs


def _time_order(image: Image) -> tuple[Any, str]:
    return image.time, image.product


def is_before(first: Image, second: Image) -> bool:
    """Return True if `first` is of an earlier date than `second` and `same_geometry` holds."""
    return bool(
        first.time
        and second.time
        and second.time - first.time > SAME_DATATAKE
        and same_geometry(first, second)
    )


def same_geometry(first: Image, second: Image) -> bool:
    """Return True for equal pass directions and, where both are known, relative orbits."""
    orbits = (first.relative_orbit, second.relative_orbit)
    return first.orbit_pass == second.orbit_pass and (0 in orbits or orbits[0] == orbits[1])


RULES: dict[str, Callable[[Sequence[Image], Collection[str]], list[Pair]]] = {
    "chronological": chronological,
    "published": published,
}


def onsets(images: Iterable[Image]) -> set[str]:
    """Return the ids of the first flooded image of a sequence and its neighbouring slices.

    All images of the list count, usable or not: if the first flooded image cannot be used, no later
    one replaces it, because later labels only repeat the first.
    """
    flooded = [(image.time, image) for image in images if image.flooded and image.time]
    first = min((time for time, _ in flooded), default=None)
    return {image.id for time, image in flooded if first and time - first <= SAME_DATATAKE}


def reprocessed(images: Iterable[Image], unusable: Collection[str]) -> list[str]:
    """Return the ids of images whose acquisition an earlier usable image of the list shows, too."""
    seen: set[str] = set()
    again = []
    for image in images:
        acquisition = CHECKSUM.sub("", image.product.lower())
        if image.id in unusable:
            continue
        if acquisition in seen:
            again.append(image.id)
        seen.add(acquisition)
    return again


class Scene(NamedTuple):
    """Input of the pairing of one sequence.

    Attributes:
      images: all images of the list.
      group: name of the group of sequences that share products.
      absent: reason by id of every image that has no record.
    """

    images: Sequence[Image]
    group: str
    absent: Mapping[str, str]


UNREADABLE = "an image cannot be read"


def make_pairs(
    split: str,
    columns: Columns,
    *,
    scenes: Mapping[str, Mapping[str, Scene]],
    rule: str,
    max_zeros: float,
) -> Pairs:
    """Return the pairs of a split; see `Plan.pair`.

    Args:
      split: name of the split.
      columns: "id" and "zero_share" of its records.
      scenes: by split and sequence.
      rule: an entry of `RULES`.
      max_zeros: images with this share of zeros in a band, or more, are in no pair.
    """
    number = {name: row for row, name in enumerate(columns["id"])}
    zeros = dict(zip(columns["id"], columns["zero_share"], strict=True))
    left_out: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for sequence, scene in scenes[split].items():
        reason_of = {}
        for image in scene.images:
            if image.id not in number:
                reason_of[image.id] = scene.absent.get(image.id, UNREADABLE)
            elif zeros[image.id] >= max_zeros:
                reason_of[image.id] = f"{max_zeros:.0%} of an image or more is zero or NaN"
        if rule == "chronological":
            reason_of |= dict.fromkeys(reprocessed(scene.images, reason_of), REPROCESSED)
        usable = {image.id for image in scene.images} - reason_of.keys()
        onset = onsets(scene.images)
        pairs = RULES[rule](scene.images, usable)
        for pair in pairs:
            reasons = [reason_of[image.id] for image in pair if image.id in reason_of]
            if reasons:
                left_out[reasons[0]] = left_out.get(reasons[0], 0) + 1
            else:
                rows.append(_row(pair, number, onset, sequence, scene.group))
        if rule == "chronological":  # every image is in a pair, or counted with a reason
            paired = {pair.after.id for pair in pairs}
            for image in scene.images:
                if image.id not in paired:
                    reason = reason_of.get(image.id, "no dry image before it, seen alike")
                    left_out[reason] = left_out.get(reason, 0) + 1
    names = rows[0].keys() if rows else ("before", "after")
    return Pairs({name: [row[name] for row in rows] for name in names}, left_out)


def _row(
    pair: Pair, number: Mapping[str, int], onset: Collection[str], sequence: str, group: str
) -> dict[str, Any]:
    before, after = pair
    gap = (after.time - before.time) / timedelta(days=1) if before.time and after.time else None
    return {
        "before": number[before.id],
        "after": number[after.id],
        "flooded": int(after.flooded),
        "sequence": sequence,
        "group": group,
        "gap_days": gap if gap is None else round(gap, 5),
        "onset": after.id in onset,
        "seen_alike": same_geometry(before, after),
    }
