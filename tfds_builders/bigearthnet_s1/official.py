"""The files that say which patch is in which split."""

from pathlib import Path

from sar_mixmae_jax.errors import InputError


def find(patches: Path, name: str) -> Path:
    """An official file: among the patches, beside them, or in a folder `splits` there.

    Raises:
      InputError: it is in none of these places.
    """
    for folder in (patches, patches / "splits", patches.parent, patches.parent / "splits"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{patches}: found no {name} there, beside it, or in a folder splits, expected the "
        "official splits: put it there, or build bigearthnet_s1/v1_unsplit, which takes all patch "
        "folders as one split"
    )
