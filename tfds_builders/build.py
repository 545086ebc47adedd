"""Builds a dataset: `python -m tfds_builders.build NAME --manual_dir=RAW --data_dir=WHERE`.

NAME is the folder of a builder here, with `/config` if not its default. Ends with one line that
says what was built; a build that fails leaves nothing that reads as a dataset.
"""

import contextlib
import importlib
import io
import pkgutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from absl import app, flags, logging

import tfds_builders
from sar_mixmae_jax.errors import InputError, UserError, fail, first_line, parse_flags, unknown_name

MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "folder with the raw data, if any is needed")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder to build into")


def builder_names() -> list[str]:
    """The datasets that can be built: the packages in `tfds_builders`."""
    return [module.name for module in pkgutil.iter_modules(tfds_builders.__path__) if module.ispkg]


def make_builder(name: str, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """A builder by name, "dataset" or "dataset/config", writing array_record below `data_dir`.

    Raises:
      InputError: there is no such dataset or config.
    """
    dataset, _, config = name.partition("/")
    if dataset not in builder_names():
        raise unknown_name(dataset, builder_names(), "dataset")
    module = importlib.import_module(f"tfds_builders.{dataset}.{dataset}_dataset_builder")
    if config and config not in module.Builder.builder_configs:
        raise unknown_name(config, module.Builder.builder_configs, f"config of {dataset}")
    return module.Builder(data_dir=str(data_dir), config=config or None, file_format="array_record")


def build(name: str, data_dir: str | Path, manual_dir: str | Path | None = None) -> Path:
    """Builds a dataset unless it is there, and returns its folder.

    Args:
      name: "dataset" or "dataset/config".
      data_dir: where to build.
      manual_dir: where the raw data lie, for datasets that need it.

    Raises:
      InputError: unknown name, no raw data, or a raw file that cannot be used.
    """
    try:
        builder = make_builder(name, data_dir)
        folder = Path(builder.data_path)
        if folder.exists():
            print(f"{folder} is built already: remove it to build it again")
            return folder
        if type(builder).MANUAL_DOWNLOAD_INSTRUCTIONS:
            check_raw(name, manual_dir, builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
        config = tfds.download.DownloadConfig(
            manual_dir=str(Path(manual_dir).resolve()) if manual_dir else None
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it talks of downloads; there are none
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except (OSError, RuntimeError) as error:  # the record writer raises RuntimeError
        raise InputError(
            f"{name} cannot be built in {data_dir} ({first_line(error)}): check that the folder "
            "can be written and has room"
        ) from error
    finally:
        for made in ("downloads", name.partition("/")[0]):  # what else is there is not ours
            remove_empty(Path(data_dir, made))
    for left in folder.parent.glob("*incomplete*"):
        print(f"{left} was left by a build that was killed, and can be removed")
    return folder


def check_raw(name: str, manual_dir: str | Path | None, instructions: str) -> None:
    """Checks that there is a folder with something in it.

    Raises:
      InputError: there is none.
    """
    if not manual_dir:
        raise InputError(
            f"{name} is built from raw data, and no --manual_dir was given: {instructions}"
        )
    if not Path(manual_dir).is_dir() or not any(Path(manual_dir).iterdir()):
        raise InputError(
            f"--manual_dir {manual_dir}: found no such folder, or an empty one, expected the "
            f"raw data: {instructions}"
        )


def remove_empty(folder: Path) -> None:
    """Removes a folder and those below it where empty: TFDS makes some that it never fills.

    What a build in another process is about to fill stays.
    """
    for path in sorted((folder, *folder.rglob("*")), reverse=True):
        if path.is_dir() and "incomplete" not in path.name and not any(path.iterdir()):
            path.rmdir()


def main(argv: Sequence[str]) -> None:
    """Builds what the command line names."""
    logging.set_verbosity(logging.WARNING)
    try:
        if len(argv) != 2:
            raise InputError(
                f"found {len(argv) - 1} dataset names, expected one of "
                f"{', '.join(builder_names())}: python -m tfds_builders.build NAME"
            )
        folder = build(argv[1], DATA_DIR.value, MANUAL_DIR.value)
    except UserError as error:
        fail(error)
    for split in tfds.builder_from_directory(folder).info.splits.values():
        print(f"{folder}: {split.name}, {split.num_examples} patches")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
