"""Where the lists of the archive are, and which sequences those of the split name."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from sar_mixmae_jax.errors import InputError
from tfds_builders.problems import Problem
from tfds_builders.sen12_flood import archive, listing, split_lists
from tfds_builders.sen12_flood.archive import Source

TEXTS = (".json", *split_lists.SUFFIXES)


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
        if found := [s for s in tier if s.name.rsplit("/", 1)[-1].lower() == listing.LIST.lower()]:
            return found[0]
    raise InputError(
        f"{root}: found no {listing.LIST} there, beside it or in the zip, expected it with the "
        "labels of the images: put it there"
    )


def official_splits(
    near: list[list[Source]],
    root: Path,
    described: Collection[str],
    given: Mapping[str, str],
) -> tuple[dict[str, list[str]], list[Problem]]:
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
    problems: list[Problem] = []
    lists = {s: split_lists.find_list(near, root, s, given[s]) for s in split_lists.SPLITS}
    for split, source in lists.items():
        members[split], wrong = split_lists.read_ids(source, described)
        problems += wrong
    for sequence in set(members["train"]) & set(members["test"]):
        reason = f"names sequence {sequence}, and {lists['test'].name} does too: mend the lists"
        problems.append(Problem(str(lists["train"]), reason))
        members["train"].remove(sequence)
    return members, problems
