"""From the archive to a plan: lists, sequences, validation split, products in two splits."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.data.metadata import FLOOR_DB
from tfds_builders.plan import Plan
from tfds_builders.sen12_flood import archive, index, pairing, sequences
from tfds_builders.sen12_flood import splits as split_lists
from tfds_builders.sen12_flood.pairing import Scene
from tfds_builders.sen12_flood.rasters import as_rows, read_record, sources
from tfds_builders.sen12_flood.sequences import Looked
from tfds_builders.sen12_flood.splits import Weight

IMAGES_PER_SHARD = 64
"""134 MB of 512x512x2 float32; 4,600 images make enough shards for many cores."""

NEEDS: dict[str, tuple[str, ...]] = {
    "chronological": ("full", "orbit_pass", "time"),
    "published": (),
}
"""What a rule must know of an image, beside its label."""


class Options(NamedTuple):
    """What a config decides of the plan; see there."""

    pairs: str
    size: int
    zeros: str
    max_zeros: float
    validation_share: float
    split_seed: int
    train_list: str
    test_list: str


def plan(root: Path, options: Options) -> Plan:
    """The images of the official splits, a part of `train` being `validation`.

    Args:
      root: the zip, the folder of the zip, or that of the unpacked archive.
      options: of the config.

    Raises:
      InputError: there is no archive, or a list of images or of a split is missing.
    """
    place = archive.find(root)
    files = archive.file_names(place)
    near = split_lists.texts_near(root, place, files)
    source = split_lists.find_list_of_images(near, root)
    described = index.read_list(source)
    members, problems = split_lists.official_splits(
        near, root, described, {"train": options.train_list, "test": options.test_list}
    )
    named = sequences.folders(files)
    looked = {
        sequence: sequences.look_at(
            sequence,
            described[sequence],
            sequences.folder_of(sequence, described[sequence], named, place),
            place,
            source,
            size=options.size,
            full_only=options.pairs == "chronological",
            needs=NEEDS[options.pairs],
        )
        for sequence in sorted({s for split in members.values() for s in split})
    }
    problems += [problem for one in looked.values() for problem in one.problems]
    products = {
        sequence: {image.product.lower() for image in one.images}
        for sequence, one in looked.items()
    }
    shared = _products(members["train"], products) & _products(members["test"], products)
    group = {
        sequence: name
        for split in members.values()
        for sequence, name in split_lists.components({s: products[s] for s in split}).items()
    }
    splits = with_validation(members, looked, group, options)
    grids = {sequence: one.grid for sequence, one in looked.items() if one.items and one.grid}
    scenes = {
        split: {s: Scene(looked[s].images, group[s], looked[s].absent) for s in chosen}
        for split, chosen in splits.items()
    }
    facts, notes = about(splits, members, looked, products, shared, group, options)
    unused = len(described.keys() - looked.keys())
    return Plan(
        {
            name: as_rows([i for s in chosen for i in looked[s].items])
            for name, chosen in splits.items()
        },
        read_record,
        sources,
        (place, grids, options.zeros),
        per_shard=IMAGES_PER_SHARD,
        problems=problems,
        dropped=sum(one.dropped for one in looked.values()),
        index=pairing.INDEX,
        pair=partial(
            pairing.make_pairs, scenes=scenes, rule=options.pairs, max_zeros=options.max_zeros
        ),
        facts=facts,
        notes=[f"{unused} of {len(described)} sequences are in no list, and not used", *notes],
    )


def _products(chosen: Iterable[str], products: Mapping[str, set[str]]) -> set[str]:
    return {name for sequence in chosen for name in products[sequence]}


def with_validation(
    members: Mapping[str, list[str]],
    looked: Mapping[str, Looked],
    group: Mapping[str, str],
    options: Options,
) -> dict[str, list[str]]:
    """The splits, `validation` cut from `train` if it can be."""
    train = members["train"]
    weights = {sequence: weight(looked[sequence], options.pairs) for sequence in train}
    chosen = split_lists.cut(
        {sequence: group[sequence] for sequence in train},
        weights,
        options.validation_share,
        options.split_seed,
    )
    splits = {
        "train": [sequence for sequence in train if sequence not in chosen],
        "validation": [sequence for sequence in train if sequence in chosen],
        "test": members["test"],
    }
    return {name: found for name, found in splits.items() if found or name != "validation"}


def weight(one: Looked, rule: str) -> Weight:
    """The pairs that a sequence promises, as far as that is known before an image was read."""
    there = {f"{item.sequence}/{item.product}" for item in one.items}
    whole = {image.id for image in one.images if image.id in there and image.full is not False}
    labels = [
        pair.after.flooded
        for pair in pairing.RULES[rule](one.images, whole)
        if {image.id for image in pair} <= whole
    ]
    return Weight(len(labels) - sum(labels), sum(labels))


def about(
    splits: Mapping[str, list[str]],
    members: Mapping[str, list[str]],
    looked: Mapping[str, Looked],
    products: Mapping[str, set[str]],
    shared: set[str],
    group: Mapping[str, str],
    options: Options,
) -> tuple[dict[str, Any], list[str]]:
    """Facts for the metadata, and notes."""
    touched = [s for s in members["test"] if products[s] & shared]
    said = (
        f"{len(shared)} Sentinel-1 products are in both train and test, of "
        f"{len(_products(members['train'], products))} and "
        f"{len(_products(members['test'], products))}; {len(touched)} of {len(members['test'])} "
        "test sequences have one"
    )
    other_size = sorted(s for s, one in looked.items() if one.absent and one.grid is None)
    partial_images = sum(
        reason == sequences.PARTIAL for one in looked.values() for reason in one.absent.values()
    )
    unlisted = sum(one.unlisted for one in looked.values())
    notes = [said]
    if "validation" in splits:
        notes.append(
            f"validation: {len(splits['validation'])} of {len(members['train'])} training "
            f"sequences, in {len({group[s] for s in splits['validation']})} of "
            f"{len({group[s] for s in members['train']})} groups that share products"
        )
    elif options.validation_share > 0:
        notes.append(
            "there is no validation split: the training sequences share products with each other, "
            "so no part of them is independent of the rest and has pairs"
        )
    if other_size:
        notes.append(
            f"left out: {len(other_size)} sequences that are not {options.size}x{options.size} px: "
            f"{', '.join(other_size)}"
        )
    if partial_images:
        notes.append(f"left out: {partial_images} images that cover their place in part")
    if unlisted:
        notes.append(f"not used: {unlisted} images that {index.LIST} does not describe")
    facts = {
        "caveats": [f"{len(shared)} products in both train and test"] if shared else [],
        "floor_db": FLOOR_DB,
        "sequences": {name: list(chosen) for name, chosen in splits.items()},
        "shared_products": sorted(shared),
        "test_sequences_with_shared_products": touched,
        "sequences_of_another_size": other_size,
    }
    return facts, notes
