"""Scenes that are named by addresses, copied to the cache folder before they are read."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import is_url, report_write_errors

SUFFIXES = (".tif", ".tiff")


def copy_scenes(names: Sequence[str], *, is_allowed: bool) -> list[str]:
    """Copy files and folders that are named by addresses.

    A copy of the version that is stored is kept.

    Args:
      names: paths and addresses, of GeoTIFFs or, in buckets, of folders of them.
      is_allowed: True if the user asked for copies.

    Returns:
      The names, with local paths in place of addresses.

    Raises:
      InputError: an address is given without `is_allowed`, or holds no GeoTIFF.
      StorageError: it cannot be read.
    """
    addresses = [name for name in names if is_url(name)]
    if addresses and not is_allowed:
        raise InputError(
            f"{addresses[0]} is an address: give --copy_scenes to copy it here, or a path"
        )
    return [_copy(name) if is_url(name) else name for name in names]


def _copy(url: str) -> str:
    from sar_mixmae_jax.utils import object_store
    from sar_mixmae_jax.utils.mirror import cache_folder

    scheme, _, rest = url.partition("://")
    path = PurePosixPath(rest)
    target = cache_folder() / "scenes" / scheme / path
    if path.suffix.lower() in SUFFIXES:
        url, objects = url[: -len(path.name) - 1], {path.name: object_store.find_object(url)}
        folder = target.parent
    else:
        url, folder = url.rstrip("/"), target
        listed = object_store.list_objects(url)
        objects = {name: listed[name] for name in listed if name.lower().endswith(SUFFIXES)}
    if not objects:
        raise InputError(f"{url}: found no GeoTIFF, expected an address of one or of a folder")
    missing = {
        name: stored
        for name, stored in objects.items()
        if not _is_current(folder / name, stored.version)
    }
    for name, stored in missing.items():
        (folder / name).unlink(missing_ok=True)
        note = _version_path(folder / name)
        with report_write_errors(note):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(stored.version)
    object_store.download(url, folder, missing)
    return str(target)


def _is_current(path: Path, version: str) -> bool:
    """Return True for a copy of a version; never where the store has no versions."""
    note = _version_path(path)
    return bool(version) and path.exists() and note.exists() and note.read_text() == version


def _version_path(path: Path) -> Path:
    """Return the path of a file with the version of a copy, which is written before the copy."""
    return path.with_name(f".{path.name}.version")
