"""The lists of the official split: which sequences are for training, and which for testing."""

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders.bad_files import BadFile
from tfds_builders.sen12_flood import archive, index
from tfds_builders.sen12_flood.archive import Source

SUFFIXES = (".csv", ".txt")
SPLITS = ("train", "test")


def find_list(near: Sequence[list[Source]], root: Path, split: str, given: str) -> Source:
    """The list of a split: what an option names, else the one with the split in its name.

    Args:
      near: files that may be it, from near to far.
      root: what the user named as the archive, for options and messages.
      split: "train" or "test".
      given: by the option; a path, also from the archive's folder, or "".

    Raises:
      InputError: there is none, or there are several that differ.
    """
    if given:
        return _given(near, root, split, given)
    for sources in near:
        found = [source for source in sources if _may_be(source, split)]
        found = [s for s in found if Path(s.name).stem.lower() == split] or found
        if len({archive.read(source) for source in found}) > 1:
            raise InputError(
                f"{root}: found {len(found)} lists of the {split} split that differ, "
                f"{', '.join(source.name for source in found[:5])}: name one with --{split}_list"
            )
        if found:
            return found[0]
    raise InputError(
        f"{root}: found no list of the {split} split, expected a CSV file with {split!r} in its "
        f"name there, beside it or in the zip: put the official list there, or name it with "
        f"--{split}_list"
    )


def _may_be(source: Source, split: str) -> bool:
    path = Path(source.name.lower())
    other = next(name for name in SPLITS if name != split)
    return path.suffix in SUFFIXES and split in path.stem and other not in path.stem


def _given(near: Sequence[list[Source]], root: Path, split: str, given: str) -> Source:
    for folder in (root.parent if root.is_file() else root, Path()):
        path = (folder / Path(given).expanduser()).resolve()
        if path.is_file():
            return Source(path.parent, path.name)
    for source in (source for sources in near for source in sources):
        if f"/{source.name}".endswith(f"/{given}"):
            return source
    raise InputError(
        f"--{split}_list={given}: found no such file, expected a list of sequences: give its path"
    )


def read_ids(source: Source, known: Collection[str]) -> tuple[list[str], list[BadFile]]:
    """The sequences that a list names, as the archive spells them, and the names it does not know.

    The ids may be one a line, in some column of a table, with or without a header, or all in one
    line. An id that only differs by leading zeros counts where a single sequence can be meant:
    "0001" and "1" may be two.

    Raises:
      InputError: there are none in it.
    """
    try:
        lines = archive.read(source).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: found no text: copy the official list again") from error
    text = [re.sub(r"[;\t ]+", ",", line.strip()) for line in lines]
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text) if any(row)]
    except csv.Error as error:
        raise InputError(
            f"{source}: found no table ({first_line(error)}): copy the official list again"
        ) from error
    spelled = _spellings(known)
    cells = _column(rows, known, spelled)
    if len(cells) > 1 and _is_header(cells):
        cells = cells[1:]
    cells = [cell for cell in cells if cell]
    if not cells:
        raise InputError(f"{source}: found no sequences in it: copy the official list again")
    named = {cell: cell if cell in known else spelled.get(_bare(cell), "") for cell in cells}
    problems = [
        BadFile(
            str(source),
            f"names the sequence {cell[:50]!r}, which the archive's list does not describe, or "
            "under several numbers: mend the list",
        )
        for cell, sequence in named.items()
        if not sequence
    ]
    return list(dict.fromkeys(filter(None, named.values()))), problems


def _is_header(cells: list[str]) -> bool:
    """Whether the first cell has letters where no other one has."""
    first, *others = (any(letter.isalpha() for letter in _bare(cell)) for cell in cells)
    return first and not any(others)


def _bare(cell: str) -> str:
    """An id without leading zeros, folders, and the ".0" of tables that took it for a number."""
    cell = cell.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"\.0$", "", cell).lstrip("0") or "0"


def _spellings(known: Collection[str]) -> dict[str, str]:
    """The sequence that is meant by an id without leading zeros, where there is just one."""
    meant: dict[str, list[str]] = {}
    for name in known:
        meant.setdefault(_bare(name), []).append(name)
    return {bare: names[0] for bare, names in meant.items() if len(names) == 1}


def _column(rows: list[list[str]], known: Collection[str], spelled: dict[str, str]) -> list[str]:
    """The cells of the column that has most ids, or of the one row if there are several in it."""

    def is_id(cell: str) -> bool:
        return cell in known or _bare(cell) in spelled

    last = [cell for cell in rows[-1] if cell] if rows else []
    if len(rows) <= 2 and len(last) > 1 and all(map(is_id, last)):
        return last
    width = max(map(len, rows), default=0)
    columns = [[row[i] if i < len(row) else "" for row in rows] for i in range(width)]
    exact = [sum(cell in known for cell in column) for column in columns]
    loose = [sum(map(is_id, column)) for column in columns]
    # numbers of rows, which tables begin with, may be ids too: they have no header
    order = sorted(
        range(width), key=lambda i: (exact[i], loose[i], columns[i][0] != "", -i), reverse=True
    )
    return columns[order[0]] if order else []


TEXTS = (".json", *SUFFIXES)


def texts_near(root: Path, place: Path, files: Iterable[str]) -> list[list[Source]]:
    """Files that may be lists, from near to far: in the folder, in the zip, beside the folder."""
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
            (one for one in tier if one.name.lower().endswith(TEXTS)),
            key=lambda one: (one.name.count("/"), one.name),
        )
        for tier in tiers
    ]


def find_list_of_images(near: Iterable[list[Source]], root: Path) -> Source:
    """S1list.json.

    Raises:
      InputError: it is nowhere.
    """
    for tier in near:
        if found := [s for s in tier if s.name.rsplit("/", 1)[-1].lower() == index.LIST.lower()]:
            return found[0]
    raise InputError(
        f"{root}: found no {index.LIST} there, beside it or in the zip, expected it with the "
        "labels of the images: put it there"
    )


def official_splits(
    near: list[list[Source]],
    root: Path,
    described: Collection[str],
    given: Mapping[str, str],
) -> tuple[dict[str, list[str]], list[BadFile]]:
    """The sequences of `train` and `test`; what is in both stays in `test` only.

    Args:
      near: files that may be the lists, from near to far.
      root: what the user named as the archive.
      described: the sequences that the list of images describes.
      given: by options, for both splits, or "".

    Raises:
      InputError: a list is missing.
    """
    members: dict[str, list[str]] = {}
    problems: list[BadFile] = []
    lists = {s: find_list(near, root, s, given[s]) for s in SPLITS}
    for split, source in lists.items():
        members[split], wrong = read_ids(source, described)
        problems += wrong
    for sequence in set(members["train"]) & set(members["test"]):
        reason = f"names sequence {sequence}, and {lists['test'].name} does too: mend the lists"
        problems.append(BadFile(str(lists["train"]), reason))
        members["train"].remove(sequence)
    return members, problems


TRIALS = 2_000
"""Orders of the groups that are tried for a split."""


class Weight(NamedTuple):
    """What a sequence brings to a split.

    Attributes:
      dry: pairs without a flood.
      flooded: pairs with one.
    """

    dry: int
    flooded: int


def components(products: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The group of every sequence, under the name of the group's first one.

    Two sequences that have a product in common are in one group, and so are those that are linked
    through others.

    Args:
      products: of every sequence.
    """
    leader = {sequence: sequence for sequence in products}

    def first(sequence: str) -> str:
        while leader[sequence] != sequence:
            leader[sequence] = leader[leader[sequence]]
            sequence = leader[sequence]
        return sequence

    owner: dict[str, str] = {}
    for sequence in sorted(products):
        for product in products[sequence]:
            one, other = sorted((first(sequence), first(owner.setdefault(product, sequence))))
            leader[other] = one
    return {sequence: first(sequence) for sequence in products}


def cut(
    groups: Mapping[str, str], weights: Mapping[str, Weight], share: float, seed: int
) -> set[str]:
    """Sequences for validation: whole groups, about a share of all, with floods as often as in all.

    Of many random choices that are about as large as they should be, the one is taken that is
    nearest to the share and to the balance; both sides keep a pair, and of both classes if that is
    possible.

    Args:
      groups: the group of every sequence.
      weights: the pairs of every sequence.
      share: of the sequences.
      seed: of the choices.

    Returns:
      The sequences; none where no choice leaves a pair on both sides.
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
    """How far a choice is from what is wanted; infinite if a side has no pair."""
    inside, outside = pairs[picked].sum(0), pairs[~picked].sum(0)
    if not inside.sum() or not outside.sum():
        return np.inf
    absent = (inside == 0).sum() + (outside == 0).sum()
    balance = abs(inside[1] / inside.sum() - pairs.sum(0)[1] / pairs.sum())
    return float(absent + balance + abs(size[picked].sum() / size.sum() - share))
