"""What builds and training agree on; free of JAX, for builds without it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from sar_mixmae_jax.utils.errors import InputError, first_line

BANDS = ("VH", "VV")
"""The Sentinel-1 IW dual-polarisation bands, in the order of the published checkpoints."""

FLOOR_DB = -35.0
"""Of linear power that is 0 or below after noise subtraction: a dark pixel, and no nodata."""

FEATURES = "features.json"
"""In the folder of a dataset: the one file whose content TFDS turns into imports."""

CODE_KEYS = ("pythonClassName", "python_class_name", "type")
"""Under these TFDS looks for code: both spellings of its protocol buffer, and its older JSON."""

PART = re.compile(r"\w[\w.+*-]{0,199}")
"""Of a dataset's name, between its slashes and colons."""


def check_features(folder: Path) -> None:
    """Refuses a dataset that names other code than TFDS's own, which would be run.

    Args:
      folder: the one that TFDS is going to open.

    Raises:
      InputError: names the file and the code, or says why the file is no JSON.
    """
    path = folder / FEATURES
    try:
        names = list(_names_of_code(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as JSON ({first_line(error)}): it is damaged, build it again"
        ) from error
    for name in names:
        if not name.startswith("tensorflow_datasets.core.features."):
            raise InputError(
                f"{path}: names the code {name[:100]}, expected features of tensorflow_datasets: "
                "remove this dataset unless you made it"
            )


def _names_of_code(content: Any) -> Iterator[str]:
    """What is named as code anywhere in a content, also in JSON that is a text in the JSON."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (value[k] for k in CODE_KEYS if isinstance(value.get(k), str))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
            try:
                waiting.append(json.loads(value))
            except ValueError:  # a text, which TFDS cannot parse either
                continue


def ids_file(split: str) -> str:
    """The file of a built dataset that lists the ids of a split, one a line, in their order."""
    return f"ids-{split}.txt"


def check_dataset_name(name: str) -> None:
    """Refuses what is no name of a dataset, such as one that leads out of the data folder.

    Raises:
      InputError: says what a name looks like.
    """
    if not all(PART.fullmatch(part) for part in re.split("[/:]", name)):
        raise InputError(
            f"{name[:100]!r} is no name of a dataset: expected one such as bigearthnet_s1 or "
            "bigearthnet_s1/v1:2.0.0, below the data folder"
        )


def open_builder(name: str, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """Opens a built dataset without the code that built it.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: where datasets are built.

    Raises:
      InputError: there is no such dataset, or its files cannot be used.
    """
    check_dataset_name(name)
    try:
        # the folder itself, since names are not folders: TFDS takes BigEarthNet for big_earth_net
        found = tfds.core.read_only_builder._find_builder_dir(name, data_dir=str(data_dir))
        if found is None:
            raise FileNotFoundError(name)
        check_features(Path(found))
        builder = tfds.builder_from_directory(found)
    except Exception as error:  # the library raises several types, none of them documented
        if isinstance(error, InputError):
            raise
        unfinished = [*Path(data_dir, name.split(":")[0]).rglob("incomplete.resume_*")]
        raise InputError(
            f"found no dataset {name!r} in {data_dir}, expected one: "
            + (
                f"{unfinished[0]} is of a build that stopped; the same command goes on"
                if unfinished
                else f"build it with `python -m tfds_builders.build {name} --data_dir={data_dir}`"
            )
        ) from error
    try:
        _ = builder.info.metadata
    except (OSError, ValueError, TypeError):
        pass  # whoever needs them says so
    except RecursionError as error:  # which nobody expects of JSON
        raise InputError(
            f"{found}/metadata.json: cannot be used ({first_line(error)}): build it again"
        ) from error
    return builder
