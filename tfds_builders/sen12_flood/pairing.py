"""Which two dates make a pair: as published, or as change detection would meet them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from tfds_builders.plan import Columns, Pairs
from tfds_builders.sen12_flood.index import Image

SAME_DATATAKE = timedelta(hours=1)
"""Images closer in time are neighbouring slices of one datatake, and not two dates."""

INDEX = ("zero_share",)
"""Features of the records that pairs are made by, besides the id."""


class Pair(NamedTuple):
    """Two dates of a sequence; the first is dry.

    Attributes:
      before: the first.
      after: the second, which has the label.
    """

    before: Image
    after: Image


def published(images: Sequence[Image], usable: Collection[str]) -> list[Pair]:
    """Every dry image with every other one of the sequence, once.

    The dry one is before; of two dry ones the earlier one, where both times are known, else the one
    that the list names first. All pairs are made: which are usable is asked later.
    """
    del usable
    pairs = []
    for number, dry in enumerate(images):
        for other_number, other in enumerate(images):
            seen = not other.flooded and other_number <= number
            if dry.flooded or seen or other is dry:
                continue
            later = not other.flooded and dry.time and other.time and other.time < dry.time
            pairs.append(Pair(other, dry) if later else Pair(dry, other))
    return pairs


def chronological(images: Sequence[Image], usable: Collection[str]) -> list[Pair]:
    """Every usable image with the latest usable dry one before it that was seen alike.

    Alike is: of the same pass direction, and of the same relative orbit where both are known.
    """
    ordered = sorted((i for i in images if i.id in usable and i.time), key=_when)
    pairs = []
    for image in ordered:
        before = [dry for dry in ordered if not dry.flooded and is_before(dry, image)]
        if before:
            pairs.append(Pair(before[-1], image))
    return pairs


def _when(image: Image) -> tuple[Any, str]:
    return image.time, image.product


def is_before(one: Image, other: Image) -> bool:
    """Whether one is of an earlier date, seen alike."""
    return bool(
        one.time and other.time and other.time - one.time > SAME_DATATAKE and seen_alike(one, other)
    )


def seen_alike(one: Image, other: Image) -> bool:
    """The same pass direction, and the same relative orbit where both are known."""
    orbits = (one.relative_orbit, other.relative_orbit)
    return one.orbit_pass == other.orbit_pass and (0 in orbits or orbits[0] == orbits[1])


RULES: dict[str, Callable[[Sequence[Image], Collection[str]], list[Pair]]] = {
    "chronological": chronological,
    "published": published,
}


def onsets(images: Iterable[Image]) -> set[str]:
    """The first flooded image of a sequence, and its neighbouring slices, by id.

    By time, over all images that the list describes, usable or not: if the first one cannot be
    used, no other one becomes the onset for it, since its label only says what was before.
    """
    flooded = [(image.time, image) for image in images if image.flooded and image.time]
    first = min((time for time, _ in flooded), default=None)
    return {image.id for time, image in flooded if first and time - first <= SAME_DATATAKE}


class Scene(NamedTuple):
    """What pairs of a sequence are made of.

    Attributes:
      images: all that the list describes.
      group: of the sequence.
      absent: why images are not among the records, by id.
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
    """The pairs of a split; see `Plan.pair`.

    Args:
      split: its name.
      columns: "id" and "zero_share" of its records.
      scenes: of every split, its sequences.
      rule: an entry of `RULES`.
      max_zeros: images with this share of zeros in a band, or more, are in no pair.
    """
    number = {name: row for row, name in enumerate(columns["id"])}
    zeros = dict(zip(columns["id"], columns["zero_share"], strict=True))
    left_out: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for sequence, scene in scenes[split].items():
        why = {}
        for image in scene.images:
            if image.id not in number:
                why[image.id] = scene.absent.get(image.id, UNREADABLE)
            elif zeros[image.id] >= max_zeros:
                why[image.id] = f"{max_zeros:.0%} of an image or more is zero"
        usable = {image.id for image in scene.images} - why.keys()
        onset = onsets(scene.images)
        pairs = RULES[rule](scene.images, usable)
        for pair in pairs:
            reasons = [why[image.id] for image in pair if image.id in why]
            if reasons:
                left_out[reasons[0]] = left_out.get(reasons[0], 0) + 1
            else:
                rows.append(_row(pair, number, onset, sequence, scene.group))
        if rule == "chronological":  # an image makes a pair, or there is a reason
            paired = {pair.after.id for pair in pairs}
            for image in scene.images:
                if image.id not in paired:
                    reason = why.get(image.id, "no dry image before it, seen alike")
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
        "seen_alike": seen_alike(before, after),
    }
