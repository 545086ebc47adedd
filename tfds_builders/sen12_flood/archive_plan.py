"""Plan of the build: lists, sequences, validation split, and products that two splits share."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sar_mixmae_jax.data.metadata import FLOOR_DB
from tfds_builders.plan import Plan
from tfds_builders.sen12_flood import archive, index, pairing, sequences
from tfds_builders.sen12_flood import splits as split_lists
from tfds_builders.sen12_flood.pairing import Scene
from tfds_builders.sen12_flood.rasters import as_rows, read_record, sources
from tfds_builders.sen12_flood.sequences import SequenceSurvey
from tfds_builders.sen12_flood.splits import PairCounts

IMAGES_PER_SHARD = 64
"""134 MB of 512x512x2 float32; 4,600 images make enough shards for many cores."""

REQUIRED_FIELDS: dict[str, tuple[str, ...]] = {
    "chronological": ("full", "orbit_pass", "time"),
    "published": (),
}
"""Fields of `index.Image` that a rule of pairing needs, beside the label."""


RULE_CAVEATS: dict[str, tuple[str, ...]] = {
    "chronological": (),
    "published": ("pairs join any dates and orbits, and repeat images",),
}
"""Limitations of the pairs of a rule, which every result states."""


class Options(NamedTuple):
    """Options of the build; see the config of the builder."""

    pairs: str
    size: int
    zeros: str
    max_zeros: float
    validation_share: float
    split_seed: int
    train_list: str
    test_list: str


class Overlap(NamedTuple):
    """Sentinel-1 products of the official splits.

    Attributes:
      products: names in lower case by sequence.
      counts: number of products of `train` and of `test`.
      shared: names of the products of both, as the list spells them.
      test_sequences: test sequences that have one of these.
    """

    products: Mapping[str, set[str]]
    counts: tuple[int, int]
    shared: set[str]
    test_sequences: list[str]


def plan(root: Path, options: Options) -> Plan:
    """Plan the images of the official splits, a part of `train` being `validation`.

    Args:
      root: the zip, the folder of the zip, or that of the unpacked archive.
      options: options of the config.

    Raises:
      InputError: there is no archive, or a list of images or of a split is missing.
    """
    place = archive.find(root)
    files = archive.file_names(place)
    near = split_lists.find_lists(root, place, files)
    source = split_lists.find_image_list(near, root)
    described = index.read_list(source)
    members, problems = split_lists.official_splits(
        near, root, described, {"train": options.train_list, "test": options.test_list}
    )
    folders = sequences.folders(files)
    surveys = {
        sequence: sequences.survey_sequence(
            sequence,
            described[sequence],
            sequences.folder_of(sequence, described[sequence], folders, place),
            place,
            source,
            size=options.size,
            full_only=options.pairs == "chronological",
            needs=REQUIRED_FIELDS[options.pairs],
        )
        for sequence in sorted({s for split in members.values() for s in split})
    }
    problems += [problem for survey in surveys.values() for problem in survey.problems]
    overlap = find_overlap(members, surveys)
    group = {
        sequence: name
        for split in members.values()
        for sequence, name in split_lists.components(
            {s: overlap.products[s] for s in split}
        ).items()
    }
    splits = with_validation(members, surveys, group, options)
    grids = {s: survey.grid for s, survey in surveys.items() if survey.items and survey.grid}
    scenes = {
        split: {s: Scene(surveys[s].images, group[s], surveys[s].absent) for s in chosen}
        for split, chosen in splits.items()
    }
    unknown = sequences.undescribed(folders, described)
    unused = len(described.keys() - surveys.keys())
    return Plan(
        {
            name: as_rows([item for s in chosen for item in surveys[s].items])
            for name, chosen in splits.items()
        },
        read_record,
        sources,
        (place, grids, options.zeros),
        records_per_shard=IMAGES_PER_SHARD,
        bad_files=problems,
        num_dropped=sum(survey.dropped for survey in surveys.values()),
        index_features=pairing.INDEX,
        make_pairs=partial(
            pairing.make_pairs, scenes=scenes, rule=options.pairs, max_zeros=options.max_zeros
        ),
        metadata={
            "caveats": [
                *(
                    [f"{len(overlap.shared)} products in both train and test"]
                    if overlap.shared
                    else []
                ),
                *RULE_CAVEATS[options.pairs],
            ],
            "floor_db": FLOOR_DB,
            "sequences": {name: list(chosen) for name, chosen in splits.items()},
            "shared_products": sorted(overlap.shared),
            "test_sequences_with_shared_products": overlap.test_sequences,
            "sequences_of_another_size": _of_another_size(surveys),
        },
        notes=[
            f"{unused} of {len(described)} sequences are in no list, and not used",
            *(
                [
                    f"not used: {len(unknown)} folders with images that no sequence of "
                    f"{index.LIST} has: {', '.join(unknown[:5])}"
                ]
                if unknown
                else []
            ),
            *notes(splits, members, surveys, overlap, group, options),
        ],
    )


def find_overlap(
    members: Mapping[str, list[str]], surveys: Mapping[str, SequenceSurvey]
) -> Overlap:
    """Compare the products of the official splits `train` and `test`."""
    products = {
        sequence: {image.product.lower() for image in survey.images}
        for sequence, survey in surveys.items()
    }

    def products_of(split: Iterable[str]) -> set[str]:
        return {name for sequence in split for name in products[sequence]}

    train, test = products_of(members["train"]), products_of(members["test"])
    shared = train & test
    affected = [sequence for sequence in members["test"] if products[sequence] & shared]
    spelled = {
        image.product.lower(): image.product
        for survey in surveys.values()
        for image in survey.images
    }
    return Overlap(products, (len(train), len(test)), {spelled[p] for p in shared}, affected)


def with_validation(
    members: Mapping[str, list[str]],
    surveys: Mapping[str, SequenceSurvey],
    group: Mapping[str, str],
    options: Options,
) -> dict[str, list[str]]:
    """Return the sequences of every split; `validation`, if possible, is cut from `train`."""
    train = members["train"]
    chosen = split_lists.choose_validation(
        {sequence: group[sequence] for sequence in train},
        {sequence: expected_pairs(surveys[sequence], options.pairs) for sequence in train},
        options.validation_share,
        options.split_seed,
    )
    splits = {
        "train": [sequence for sequence in train if sequence not in chosen],
        "validation": [sequence for sequence in train if sequence in chosen],
        "test": members["test"],
    }
    return {name: ids for name, ids in splits.items() if ids or name != "validation"}


def expected_pairs(survey: SequenceSurvey, rule: str) -> PairCounts:
    """Count the pairs of a sequence as far as they are known before an image is read."""
    stored = {f"{item.sequence}/{item.product}" for item in survey.items}
    usable = {image.id for image in survey.images if image.id in stored and image.full is not False}
    labels = [
        pair.after.flooded
        for pair in pairing.RULES[rule](survey.images, usable)
        if {image.id for image in pair} <= usable
    ]
    return PairCounts(len(labels) - sum(labels), sum(labels))


def notes(
    splits: Mapping[str, list[str]],
    members: Mapping[str, list[str]],
    surveys: Mapping[str, SequenceSurvey],
    overlap: Overlap,
    group: Mapping[str, str],
    options: Options,
) -> list[str]:
    """Return sentences about the splits and what is left out, for the user and the metadata.

    Args:
      splits: sequences by split.
      members: sequences by official split.
      surveys: by sequence.
      overlap: products that are in both official splits.
      group: group of sequences that share products, by sequence.
      options: options of the build.
    """
    lines = [
        f"{len(overlap.shared)} Sentinel-1 products are in both train and test, of "
        f"{overlap.counts[0]} and {overlap.counts[1]}; {len(overlap.test_sequences)} of "
        f"{len(members['test'])} test sequences have one"
    ]
    if "validation" in splits:
        lines.append(
            f"validation: {len(splits['validation'])} of {len(members['train'])} training "
            f"sequences, in {len({group[s] for s in splits['validation']})} of "
            f"{len({group[s] for s in members['train']})} groups that share products"
        )
    elif options.validation_share > 0:
        lines.append(_no_validation(members["train"], surveys, group, options.pairs))
    if other_size := _of_another_size(surveys):
        lines.append(
            f"left out: {len(other_size)} sequences that are not {options.size}x{options.size} px: "
            f"{', '.join(other_size)}"
        )
    partial_images = sum(
        reason == sequences.PARTIAL
        for survey in surveys.values()
        for reason in survey.absent.values()
    )
    if partial_images:
        lines.append(f"left out: {partial_images} images that cover their place in part")
    if unlisted := sum(survey.unlisted for survey in surveys.values()):
        lines.append(f"not used: {unlisted} images that {index.LIST} does not describe")
    return lines


def _no_validation(
    train: Sequence[str],
    surveys: Mapping[str, SequenceSurvey],
    group: Mapping[str, str],
    rule: str,
) -> str:
    """Return why there is no validation split, and how to train without one."""
    groups = {group[s] for s in train}
    with_pairs = {group[s] for s in train if sum(expected_pairs(surveys[s], rule))}
    if len(train) == 1:
        reason = "there is one training sequence"
    elif len(groups) == 1:
        reason = (
            f"the {len(train)} training sequences share products with each other, so no part of "
            "them is independent of the rest"
        )
    else:
        reason = (
            f"the training sequences are {len(groups)} groups that share no products, and pairs "
            f"are in {len(with_pairs)} of them, where two would be needed"
        )
    return f"there is no validation split: {reason}; train with --config.validation=none"


def _of_another_size(surveys: Mapping[str, SequenceSurvey]) -> list[str]:
    """Return the sequences that are left out because of their grid, sorted."""
    return sorted(s for s, survey in surveys.items() if survey.absent and survey.grid is None)
