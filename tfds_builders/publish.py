"""Publication of a built dataset in a bucket: as a whole, its description last."""

import shutil
from pathlib import Path

from sar_mixmae_jax.utils import object_store
from sar_mixmae_jax.utils.dataset_cache import INFO, USED, local_data_dir
from sar_mixmae_jax.utils.errors import StorageError
from sar_mixmae_jax.utils.mirror import cache_folder


def build_folder(data_dir: str) -> Path:
    """Return the local folder in which datasets of a bucket are built.

    It outlives an interruption, after which the same command continues.
    """
    return cache_folder() / "builds" / local_data_dir(data_dir).relative_to(cache_folder() / "data")


def publish(folder: Path, data_dir: str) -> None:
    """Copy a dataset into a bucket, and move it to the cache of datasets.

    Nothing reads it there before `INFO` is written, after all other files were compared.

    Args:
      folder: folder of the version, below `build_folder`.
      data_dir: address of the folder of datasets.

    Raises:
      StorageError: it cannot be written.
    """
    root = build_folder(data_dir)
    dataset = root / folder.relative_to(root).parts[0]
    files = [path for path in dataset.glob(".config/*") if path.is_file()]
    files += [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    names = [path.relative_to(root).as_posix() for path in files if path.name != INFO]
    url, last = data_dir.rstrip("/"), (folder / INFO).relative_to(root).as_posix()
    object_store.upload(root, url, names)
    stored = object_store.list_objects(f"{url}/{dataset.name}")
    for name in names:
        found = stored.get(name.partition("/")[2])
        if found is None or found.size != (root / name).stat().st_size:
            raise StorageError(f"{url}/{name} was not stored as a whole: give the command again")
    object_store.upload(root, url, [last])
    target = local_data_dir(data_dir) / folder.relative_to(root)
    if target.exists():
        shutil.rmtree(folder)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        (target / USED).touch()
