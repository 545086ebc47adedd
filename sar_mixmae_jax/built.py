"""Opens datasets that were built, without the code that built them; free of JAX."""

import re
from pathlib import Path

import tensorflow_datasets as tfds

from sar_mixmae_jax.errors import InputError


def check_features(folder: Path) -> None:
    """Refuses datasets below a folder that name other code than TFDS's own, which would be run.

    Raises:
      InputError: names the file and the code.
    """
    for path in folder.rglob("features.json"):
        for name in re.findall(r'"(?:pythonClassName|type)"\s*:\s*"([^"]*)"', path.read_text()):
            if not name.startswith("tensorflow_datasets.core.features."):
                raise InputError(
                    f"{path}: names the code {name}, expected features of tensorflow_datasets: "
                    "remove this dataset unless you made it"
                )


def ids_file(split: str) -> str:
    """The file of a built dataset that lists the ids of a split, one a line, in their order."""
    return f"ids-{split}.txt"


def open_builder(name: str, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """Opens a built dataset without the code that built it.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: where datasets are built.

    Raises:
      InputError: there is no such dataset.
    """
    try:
        check_features(Path(data_dir, re.split("[/:]", name)[0]))
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except Exception as error:  # the library raises several types, none of them documented
        unfinished = [*Path(data_dir, name.split(":")[0]).rglob("incomplete.resume_*")]
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"found no dataset {name!r} in {data_dir}, expected one: "
            + (
                f"{unfinished[0]} is of a build that stopped; the same command goes on"
                if unfinished
                else f"build it with `python -m tfds_builders.build {name} --data_dir={data_dir}`"
            )
        ) from error
