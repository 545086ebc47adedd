"""The files that say which patch is in which split."""

from pathlib import Path

from sar_mixmae_jax.errors import InputError


def find(patches: Path, name: str, advice: str) -> Path:
    """An official file: among the patches, beside them, or in a folder `splits` there.

    Args:
      patches: folder of the patches.
      name: of the file.
      advice: what else can be done where it is missing.

    Raises:
      InputError: it is in none of these places.
    """
    for folder in (patches, patches / "splits", patches.parent, patches.parent / "splits"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{patches}: found no {name} there, beside it, or in a folder splits, expected the "
        f"official file: put it there, {advice}"
    )
