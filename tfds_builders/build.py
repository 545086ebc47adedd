"""Build a dataset.

  sar-mixmae build bigearthnet_s1 --manual_dir=RAW
  sar-mixmae build synthetic_s1/many --patches=100000

NAME is a dataset, DATASET or DATASET/CONFIG. A dataset has flags of its own, which
`sar-mixmae build NAME --help` lists; they make a new config, called `own` unless NAME has one.
A build that was stopped continues with the same command; until then there is no dataset.
"""

import contextlib
import dataclasses
import importlib
import io
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import tensorflow_datasets as tfds
from absl import flags, logging

import tfds_builders
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.errors import (
    InputError,
    check_name,
    escape_unprintable,
    first_line,
    look_up,
)
from sar_mixmae_jax.utils.files import is_url
from tfds_builders.built_dataset import build_summary, check_existing, check_options, read_info
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import BuildSettings

FLAGS = flags.FlagValues()
MANUAL_DIR = flags.DEFINE_string(
    "manual_dir",
    None,
    "folder with the raw data, if the dataset needs any, or their only file",
    flag_values=FLAGS,
)
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of built datasets", flag_values=FLAGS)
SKIP_BAD = flags.DEFINE_boolean(
    "skip_bad", False, "leave out files that cannot be used", flag_values=FLAGS
)
PROCESSES = flags.DEFINE_integer(
    "processes", None, "number of processes (default: one a core)", 1, flag_values=FLAGS
)
ORDER_SEED = flags.DEFINE_integer(
    "order_seed", 0, "seed of the order of the records", 0, flag_values=FLAGS
)

OWN = "own"
"""Name of a config that is made by options, unless the user gives another."""


def builder_names() -> list[str]:
    """Return the datasets that can be built: folders NAME with a NAME_dataset_builder.py."""
    folder = Path(tfds_builders.__file__).parent
    return sorted(path.parent.name for path in folder.glob("*/*_dataset_builder.py"))


def builder_class(dataset: str) -> type[PatchBuilder]:
    """Return the builder class of a dataset.

    Raises:
      InputError: the dataset is unknown.
    """
    check_name(builder_names(), dataset, "dataset")
    return importlib.import_module(f"tfds_builders.{dataset}.{dataset}_dataset_builder").Builder


def make_builder(
    name: str,
    data_dir: str | Path,
    options: Mapping[str, Any] | None = None,
    settings: BuildSettings | None = None,
) -> PatchBuilder:
    """Return a builder by name.

    Args:
      name: "dataset" or "dataset/config"; with options, the config must be new.
      data_dir: folder of built datasets.
      options: fields of the config that differ from the dataset's first config.
      settings: settings of the build.

    Raises:
      InputError: dataset or config are unknown, options are given for a predefined config, or the
        folder of the dataset cannot be read.
    """
    dataset, _, config_name = name.partition("/")
    builder = builder_class(dataset)
    if config_name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", config_name):
        raise InputError(
            f"{escape_unprintable(config_name)!r} is not a valid config name: expected letters, "
            "digits, _, . and -"
        )
    predefined, first = builder.builder_configs, builder.BUILDER_CONFIGS[0]
    if options and config_name in predefined:
        raise InputError(
            f"{', '.join(f'--{option}' for option in options)} would change the config "
            f"{config_name} of {dataset}: choose another name, such as {dataset}/{OWN}"
        )
    is_new = config_name and config_name not in predefined
    if options or (builder.ACCEPTS_ANY_CONFIG_NAME and is_new):
        config = dataclasses.replace(
            first, name=config_name or OWN, description="", **(options or {})
        )
    else:
        try:
            config = look_up(predefined, config_name or first.name, f"config of {dataset}")
        except InputError as error:
            raise InputError(f"{error}; a new config needs a flag, see --help") from error
    try:
        return builder(data_dir=str(data_dir), config=config, settings=settings)
    except InputError:
        raise
    except Exception as error:  # TFDS reads an existing dataset, and raises various types
        raise InputError(
            f"{name} in {data_dir} cannot be read ({first_line(error)}): it is damaged, remove it "
            "to build it again"
        ) from error


def build(
    name: str,
    data_dir: str | Path,
    manual_dir: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    settings: BuildSettings | None = None,
) -> Path:
    """Build a dataset unless it exists, and return its folder.

    Args:
      name: "dataset" or "dataset/config".
      data_dir: folder of built datasets, or an address in a bucket: the dataset is built locally
        and published there as a whole.
      manual_dir: folder of the raw data, for datasets that need them, or their only file.
      options: fields of a new config.
      settings: settings of the build; `raw` is replaced by `manual_dir`.

    Raises:
      InputError: the name is unknown, raw data are missing, a file is given instead of a folder,
        or the folder cannot be written.
      BadFilesError: raw files cannot be used.
      StorageError: the bucket cannot be used.
    """
    raw = Path(manual_dir).absolute() if manual_dir else None
    if is_url(data_dir):
        return _build_in_bucket(name, str(data_dir), manual_dir, options, settings)
    try:
        settings = dataclasses.replace(settings or BuildSettings(), raw=raw)
        builder = make_builder(name, data_dir, options, settings)
        folder = Path(builder.data_path)
        if folder.exists():
            check_existing(builder, folder)
            return folder
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            check_raw_data(name, manual_dir, builder)
        raw_folder = raw.parent if raw and raw.is_file() else raw  # TFDS accepts only folders
        config = tfds.download.DownloadConfig(manual_dir=str(raw_folder) if raw_folder else None)
        with (
            tempfile.TemporaryDirectory() as downloads,  # required, but nothing is downloaded
            contextlib.redirect_stdout(io.StringIO()),  # messages about downloads
        ):
            builder.download_and_prepare(download_config=config, download_dir=downloads)
    except OSError as error:
        raise InputError(
            f"{name} cannot be built in {data_dir} ({first_line(error)}): check that the raw files "
            "can be read, and that the folder can be written and has room"
        ) from error
    finally:
        remove_empty_dirs(Path(data_dir, name.partition("/")[0]))
    return folder


def _build_in_bucket(
    name: str,
    data_dir: str,
    manual_dir: str | Path | None,
    options: Mapping[str, Any] | None,
    settings: BuildSettings | None,
) -> Path:
    """Build a dataset locally and publish it, unless it is there; return its cache folder."""
    from sar_mixmae_jax.utils.dataset_cache import fetch_description
    from tfds_builders.publish import build_folder, publish

    cached = fetch_description(name, data_dir)
    builder = make_builder(name, cached, options, settings)
    folder = Path(builder.data_path)
    if folder.exists():
        check_options(builder, read_info(folder), data_dir)
        print(f"{name} is in {data_dir} already: remove it to build it again", file=sys.stderr)
    else:
        built = build(name, build_folder(data_dir), manual_dir, options, settings)
        publish(built, data_dir)
    return folder


def check_raw_data(name: str, manual_dir: str | Path | None, builder: PatchBuilder) -> None:
    """Raise unless the raw data are a nonempty folder, or a file if the builder accepts one.

    Args:
      name: name of the dataset.
      manual_dir: folder or file of the raw data.
      builder: builder of the dataset.

    Raises:
      InputError: the raw data are missing, cannot be read, or are a file instead of a folder.
    """
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if not manual_dir:
        raise InputError(
            f"{name} is built from raw data, and no --manual_dir was given: {instructions}"
        )
    try:
        is_file = Path(manual_dir).is_file()
        has_content = is_file or (Path(manual_dir).is_dir() and any(Path(manual_dir).iterdir()))
    except OSError as error:
        raise InputError(
            f"--manual_dir {manual_dir} cannot be read ({first_line(error)}): allow reading"
        ) from error
    if not has_content:
        raise InputError(
            f"--manual_dir {manual_dir}: found no such folder, or an empty one, expected the "
            f"raw data: {instructions}"
        )
    if is_file and not builder.ACCEPTS_SINGLE_FILE:
        raise InputError(
            f"--manual_dir {manual_dir} is a file, and {name} is built from a folder: "
            f"{instructions}"
        )


def remove_empty_dirs(folder: Path) -> None:
    """Remove empty folders in a folder, and itself if empty, since TFDS leaves some behind.

    Folders that a build in another process is about to fill stay, and what is in them.
    """
    paths: list[Path] = []
    with contextlib.suppress(FileNotFoundError):  # removed by the other build
        paths = sorted((folder, *folder.rglob("*")), reverse=True)
    for path in paths:
        parts = path.relative_to(folder).parts
        if path.is_dir() and not any(part.startswith("incomplete.") for part in parts):
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()


DEFINE_FLAG: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def parse(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Parse the command line; the dataset that it names adds the flags of its config.

    Returns:
      The positional arguments, and the fields of the config that the command line sets.
    """
    words = [argument for argument in argv[1:] if not argument.startswith("-")]
    known = [word for word in words if word.partition("/")[0] in builder_names()]
    dataset = next(iter([*known, *words]), "").partition("/")[0]
    fields = option_fields(builder_class(dataset)) if dataset else []
    flag_values = flags.FlagValues()
    flag_values.append_flag_values(FLAGS)
    for field in fields:
        DEFINE_FLAG[type(field.default)](
            field.name,
            None,
            f"{field.metadata['help']} (default: {field.default})",
            flag_values=flag_values,
        )
    names = parse_flags(argv, flag_values, __doc__, operands=None)
    FLAGS.mark_as_parsed()
    values = {field.name: flag_values[field.name].value for field in fields}
    return names, {name: value for name, value in values.items() if value is not None}


def option_fields(builder: type[PatchBuilder]) -> list[dataclasses.Field]:
    """Return the fields of a builder's config that flags can set."""
    first = builder.BUILDER_CONFIGS[0]
    names = first.options()
    return [field for field in dataclasses.fields(first) if field.name in names]


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Build the dataset that the command line names.

    Args:
      argv: program name and arguments.
    """
    try:
        names, options = parse(argv)
        if len(names) != 1:
            raise InputError(
                f"found {len(names)} dataset names, expected one of "
                f"{', '.join(builder_names())}: sar-mixmae build NAME"
            )
        logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not its own
        signal.signal(signal.SIGTERM, _terminate)
        settings = BuildSettings(SKIP_BAD.value, PROCESSES.value, ORDER_SEED.value)
        folder = build(names[0], DATA_DIR.value, MANUAL_DIR.value, options, settings)
    except KeyboardInterrupt:
        print("interrupted: the same command continues the build", file=sys.stderr)
        sys.exit(130)
    print(build_summary(folder))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Exit by an exception, so that no process and no partial file is left."""
    del frame
    print("terminated: the same command continues the build", file=sys.stderr)
    sys.exit(128 + number)


if __name__ == "__main__":
    main(sys.argv)
