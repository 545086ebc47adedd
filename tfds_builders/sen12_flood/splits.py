"""Sequences of each split: the official lists, and validation groups cut from the training list."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFile
from tfds_builders.sen12_flood import archive, index
from tfds_builders.sen12_flood.archive import Source

SPLITS = ("train", "test")
SPLIT_SUFFIXES = (".csv", ".txt")
LIST_SUFFIXES = (".json", *SPLIT_SUFFIXES)

TRIALS = 2_000
"""Random orders of the groups that are compared for the validation split."""


class PairCounts(NamedTuple):
    """Number of pairs that a sequence adds to a split.

    Attributes:
      dry: pairs without a flood.
      flooded: pairs with a flood.
    """

    dry: int
    flooded: int


def find_lists(root: Path, place: Path, files: Iterable[str]) -> list[list[Source]]:
    """Return all files that may be lists, from near to far.

    Args:
      root: path from the user.
      place: the zip or the folder of the archive; see `archive.find`.
      files: names of the files in it.

    Returns:
      Files in the folder, in the zip, and beside the folder; within each, upper folders first.
    """
    folder = root if root.is_dir() else root.parent
    inside = [Source(place, name) for name in files]
    if place.is_dir():
        tiers = [inside]
    else:
        around = archive.file_names(folder) if root.is_dir() else archive.top_files(folder)
        tiers = [[Source(folder, name) for name in around], inside]
    if root.is_dir():
        tiers.append([Source(folder.parent, name) for name in archive.top_files(folder.parent)])
    return [
        sorted(
            (source for source in tier if source.name.lower().endswith(LIST_SUFFIXES)),
            key=lambda source: (source.name.count("/"), source.name),
        )
        for tier in tiers
    ]


def find_image_list(near: Iterable[list[Source]], root: Path) -> Source:
    """Return S1list.json.

    Args:
      near: see `find_lists`.
      root: path from the user, for the message.

    Raises:
      InputError: there is none.
    """
    for tier in near:
        for source in tier:
            if source.name.rsplit("/", 1)[-1].lower() == index.LIST.lower():
                return source
    raise InputError(
        f"{root}: found no {index.LIST} there, beside it or in the zip, expected it with the "
        "labels of the images: put it there"
    )


def official_splits(
    near: Sequence[list[Source]], root: Path, described: Collection[str], paths: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[BadFile]]:
    """Return the sequences of `train` and `test`; a sequence of both lists is in `test` only.

    Args:
      near: see `find_lists`.
      root: path from the user.
      described: ids of the sequences in S1list.json.
      paths: path of the list of each split from the options, or "".

    Returns:
      Ids by split, and a problem for each line that cannot be used.

    Raises:
      InputError: a list is missing or is no list.
    """
    lists = {split: find_split_list(near, root, split, paths[split]) for split in SPLITS}
    members: dict[str, list[str]] = {}
    problems: list[BadFile] = []
    for split, source in lists.items():
        members[split], bad_lines = read_ids(source, described)
        problems += bad_lines
    for sequence in set(members["train"]) & set(members["test"]):
        reason = f"names sequence {sequence}, and {lists['test'].name} does too: correct the lists"
        problems.append(BadFile(str(lists["train"]), reason))
        members["train"].remove(sequence)
    return members, problems


def find_split_list(near: Sequence[list[Source]], root: Path, split: str, path: str) -> Source:
    """Return the list of a split: the file of the option, else the one named after the split.

    Args:
      near: see `find_lists`.
      root: path from the user.
      split: "train" or "test".
      path: from the option, relative to the archive or the working directory, or "".

    Raises:
      InputError: there is none, or there are several with different content.
    """
    if path:
        return _list_of_option(near, root, split, path)
    for tier in near:
        sources = [source for source in tier if _is_named_after(source, split)]
        sources = [s for s in sources if Path(s.name).stem.lower() == split] or sources
        if len({archive.read(source) for source in sources}) > 1:
            raise InputError(
                f"{root}: found {len(sources)} lists of the {split} split that differ, "
                f"{', '.join(source.name for source in sources[:5])}: name one with --{split}_list"
            )
        if sources:
            return sources[0]
    raise InputError(
        f"{root}: found no list of the {split} split, expected a CSV file with {split!r} in its "
        f"name there, beside it or in the zip: put the official list there, or name it with "
        f"--{split}_list"
    )


def _is_named_after(source: Source, split: str) -> bool:
    path = Path(source.name.lower())
    (other,) = set(SPLITS) - {split}
    return path.suffix in SPLIT_SUFFIXES and split in path.stem and other not in path.stem


def _list_of_option(near: Sequence[list[Source]], root: Path, split: str, option: str) -> Source:
    for folder in (root.parent if root.is_file() else root, Path()):
        path = (folder / Path(option).expanduser()).resolve()
        if path.is_file():
            return Source(path.parent, path.name)
    for source in (source for tier in near for source in tier):
        if f"/{source.name}".endswith(f"/{option}"):
            return source
    raise InputError(
        f"--{split}_list={option}: found no such file, expected a list of sequences: give its path"
    )


def read_ids(source: Source, described: Collection[str]) -> tuple[list[str], list[BadFile]]:
    """Read a list: a sequence id a line, alone or as the first column of a CSV file.

    A first line without digits is a header. Ids must be spelled as in S1list.json, where "0001"
    and "1" may be two sequences.

    Args:
      source: the list.
      described: ids of the sequences in S1list.json.

    Returns:
      The ids in their order, each once, and a problem for each line with another id.

    Raises:
      InputError: the file is no text, has no ids, or has several ids on a line.
    """
    try:
        lines = archive.read(source).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: found no text: copy the official list again") from error
    rows = [[cell.strip(' \t"') for cell in line.split(",")] for line in lines if line.strip()]
    if rows and rows[0][0] not in described and not any(map(str.isdigit, rows[0][0])):
        rows = rows[1:]
    if not rows:
        raise InputError(f"{source}: found no sequences in it: copy the official list again")
    for row in rows:
        if any(cell in described for cell in row[1:]):
            raise InputError(
                f"{source}: found several ids on the line {','.join(row)[:50]!r}, expected one id "
                "a line, or CSV with the ids in the first column: copy the official list again"
            )
    ids = dict.fromkeys(row[0] for row in rows)
    problems = [
        BadFile(
            str(source),
            f"names the sequence {name[:50]!r}, expected an id as {index.LIST} spells it: correct "
            "the list",
        )
        for name in ids
        if name not in described
    ]
    return [name for name in ids if name in described], problems


def components(products: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the group of every sequence, named after the first sequence of the group.

    Sequences that share a product, directly or through others, are in one group.

    Args:
      products: names of the products of every sequence.
    """
    leader = {sequence: sequence for sequence in products}

    def root_of(sequence: str) -> str:
        while leader[sequence] != sequence:
            leader[sequence] = leader[leader[sequence]]
            sequence = leader[sequence]
        return sequence

    owner: dict[str, str] = {}
    for sequence in sorted(products):
        for product in products[sequence]:
            low, high = sorted((root_of(sequence), root_of(owner.setdefault(product, sequence))))
            leader[high] = low
    return {sequence: root_of(sequence) for sequence in products}


def choose_validation(
    groups: Mapping[str, str], weights: Mapping[str, PairCounts], share: float, seed: int
) -> set[str]:
    """Choose sequences for validation: whole groups with as large a share of floods as all have.

    Of `TRIALS` random orders of the groups, each cut where it is closest to `share`, the best by
    `_cost` is taken; both sides keep a pair, and pairs of both classes if possible.

    Args:
      groups: group of every sequence.
      weights: pairs of every sequence.
      share: share of the sequences, from 0 to 1.
      seed: random seed of the random orders.

    Returns:
      Ids of the sequences; empty where no choice leaves a pair on both sides.
    """
    names = sorted(set(groups.values()))
    members = {name: sorted(s for s, group in groups.items() if group == name) for name in names}
    size = np.array([len(members[name]) for name in names], float)
    pairs = np.array([np.sum([weights[s] for s in members[name]], axis=0) for name in names], float)
    rng = np.random.default_rng(seed)
    best, chosen = np.inf, np.zeros(len(names), bool)
    for _ in range(TRIALS if share > 0 and len(names) > 1 else 0):
        order = rng.permutation(len(names))
        total = np.cumsum(size[order])
        count = int(np.abs(total[:-1] - share * size.sum()).argmin()) + 1
        picked = np.zeros(len(names), bool)
        picked[order[:count]] = True
        cost = _cost(size, pairs, picked, share)
        if cost < best:
            best, chosen = cost, picked
    return {s for name, taken in zip(names, chosen, strict=True) if taken for s in members[name]}


def _cost(size: np.ndarray, pairs: np.ndarray, picked: np.ndarray, share: float) -> float:
    """Return the distance of a choice from the aims; infinite if a side has no pair."""
    inside, outside = pairs[picked].sum(0), pairs[~picked].sum(0)
    if not inside.sum() or not outside.sum():
        return np.inf
    absent = (inside == 0).sum() + (outside == 0).sum()
    balance = abs(inside[1] / inside.sum() - pairs.sum(0)[1] / pairs.sum())
    return float(absent + balance + abs(size[picked].sum() / size.sum() - share))
