"""Datasets that are built: their description, their state, and a summary for the user."""

import sys
from pathlib import Path

import tensorflow_datasets as tfds

from sar_mixmae_jax.data.metadata import check_features
from sar_mixmae_jax.utils.errors import InputError, escape_unprintable, first_line
from tfds_builders.finalize import BAD_FILES
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import Columns


def check_existing(builder: PatchBuilder, folder: Path) -> None:
    """Print that a dataset exists, or raise if it is not the one that would be built.

    Args:
      builder: builder of the dataset.
      folder: folder of the existing dataset.

    Raises:
      InputError: the dataset was built with other options, or is damaged.
    """
    info = read_info(folder)
    check_options(builder, info, folder)
    for split in info.splits.values():
        sizes = [path.stat().st_size for path in map(Path, split.filepaths) if path.is_file()]
        if (len(sizes), sum(sizes)) != (len(split.filepaths), split.num_bytes):
            raise InputError(
                f"{folder}: found {len(sizes)} files of {sum(sizes)} bytes in {split.name}, "
                f"expected {len(split.filepaths)} of {split.num_bytes}: it is damaged, remove it "
                "to build it again"
            )
    print(f"{folder} is built already: remove it to build it again", file=sys.stderr)


def check_options(builder: PatchBuilder, info: tfds.core.DatasetInfo, folder: Path | str) -> None:
    """Raise if a dataset was built with other options than those of a builder.

    Args:
      builder: builder of the dataset.
      info: description of the existing dataset.
      folder: folder of the existing dataset, for the message.

    Raises:
      InputError: the options differ.
    """
    metadata = info.metadata
    built = {**metadata.get("options", {}), "order_seed": metadata.get("order_seed")}
    expected = {**builder.builder_config.options(), "order_seed": builder.settings.order_seed}
    if built != expected:
        raise InputError(
            f"{folder} was built with {built}, expected {expected}: remove it, or give this config "
            f"another name, {builder.name}/NAME"
        )


def read_info(folder: Path) -> tfds.core.DatasetInfo:
    """Return the TFDS description of a built dataset.

    Raises:
      InputError: the dataset cannot be read.
    """
    try:
        check_features(folder)
        return tfds.builder_from_directory(folder).info
    except Exception as error:  # TFDS raises various types, none of them documented
        raise InputError(
            f"{folder} cannot be read ({first_line(error)}): it is damaged, remove it to build it "
            "again"
        ) from error


def build_summary(folder: Path) -> str:
    """Return a text about a built dataset: a line per split, caveats, notes, what is left out."""
    info = read_info(folder)
    pairs = info.metadata.get("pairs", {})
    lines = [
        f"{folder}: {split.name}, {split.num_examples} patches{_count_pairs(pairs.get(split.name))}"
        for split in info.splits.values()
    ]
    for split, reasons in info.metadata.get("pairs_left_out", {}).items():
        counts = ", ".join(f"{count} ({reason})" for reason, count in reasons.items())
        lines += [f"left out: pairs of {split}: {counts}"] if counts else []
    if caveats := info.metadata.get("caveats"):
        lines.append(f"caveats of every result: {'; '.join(caveats)}")
    lines += info.metadata["notes"]
    if "floor_db" in info.metadata:
        kinds = {"floored_pixels": "at or below 0", "faint_pixels": "above 0 and below -90 dB"}
        for name, kind in kinds.items():
            count = sum(split.get(name, 0) for split in info.metadata["measured"].values())
            if count:
                floor = info.metadata["floor_db"]
                lines.append(f"{count} pixels of linear power {kind} became {floor} dB")
    left_out = info.metadata["left_out"]
    if left_out["bad_files"]:
        lines.append(
            f"left out: {left_out['patches']} patches, for {left_out['bad_files']} bad files: "
            f"{folder / BAD_FILES}"
        )
    return "\n".join(map(escape_unprintable, lines))


def _count_pairs(columns: Columns | None) -> str:
    """Return the numbers of pairs and of flooded pairs; "" if the dataset has no pairs."""
    if columns is None:
        return ""
    return f", {len(columns['before'])} pairs, {sum(columns['flooded'])} of them flooded"
