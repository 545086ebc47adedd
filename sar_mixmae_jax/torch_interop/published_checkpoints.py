"""The released PyTorch checkpoints: how to identify them, and what their tensors do not show."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from sar_mixmae_jax.data.bigearthnet import PUBLISHED_STATISTICS
from sar_mixmae_jax.data.metadata import BANDS, Statistics
from sar_mixmae_jax.utils.errors import InputError, look_up


class PublishedFile(NamedTuple):
    """A released file.

    Attributes:
      sha256: SHA-256 of its content.
      statistics: an entry of `PUBLISHED_STATISTICS`.
      dataset: name of the dataset it was last trained on, in publications.
      built: name of that dataset in this project.
      caveat: limitation that results with the file must state.
    """

    sha256: str
    statistics: str
    dataset: str
    built: str
    caveat: str


SPLITS_CAVEAT = (
    "its encoder was pretrained on train and validation of BigEarthNet {}, without labels; test "
    "patches of one version of BigEarthNet can be training patches of the other"
)
"""Caveat of models of one version of BigEarthNet: the splits of the two versions differ."""


FILES = {
    "benv1_pretrain_checkpoint_64.pth": PublishedFile(
        "b4f385f96a1eef96c8b32768b57cee79060fe3d920c7273e2c70e43cc1c90700",
        "bigearthnet_v1",
        "BigEarthNet v1",
        "bigearthnet_s1/v1",
        SPLITS_CAVEAT.format("v1"),
    ),
    "benv1_finetune_checkpoint_best.pth": PublishedFile(
        "3778df30224903644d772d151a086d4a1bb006ab61c55ac6534ecb00fe3ae083",
        "bigearthnet_v1",
        "BigEarthNet v1",
        "bigearthnet_s1/v1",
        SPLITS_CAVEAT.format("v1"),
    ),
    "benv2_pretrain_checkpoint_64.pth": PublishedFile(
        "13ab3855a2faee9dc1ca0fb50ba483cc4e0d735b9fc8d1f03e75764c356d0b93",
        "bigearthnet_v2",
        "BigEarthNet v2",
        "bigearthnet_s1/v2",
        SPLITS_CAVEAT.format("v2"),
    ),
    "benv2_finetune_checkpoint_best.pth": PublishedFile(
        "9592399dcc5f34f608a4b558f897a919d4dd4feb06fc975c108e8f4191689c18",
        "bigearthnet_v2",
        "BigEarthNet v2",
        "bigearthnet_s1/v2",
        SPLITS_CAVEAT.format("v2"),
    ),
    "sen12_finetune_checkpoint_best.pth": PublishedFile(
        "33d06401a433191233322a24c551145e53622b6702b4fa9d6d0178cd2392c541",
        "bigearthnet_v1",
        "SEN12-FLOOD",
        "sen12_flood/published",
        "its checkpoint was chosen by its accuracy on the test split, and it began from an encoder "
        "of BigEarthNet v1",
    ),
}
"""Released files by name."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
      InputError: it cannot be read.
    """
    if not path.is_file():
        raise InputError(
            f"{path} cannot be read (no such file): expected a .pth or .safetensors file"
        )
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from error


def identify_file(path: Path, sha256: str) -> PublishedFile | None:
    """Return the released file with this content, whatever its name; None if there is none.

    Raises:
      InputError: the name is that of a released file, and the content is not.
    """
    for name, published in FILES.items():
        if published.sha256 == sha256:
            print(f"{path.name} is {name}, as published")
            return published
    if path.name in FILES:
        raise InputError(
            f"{path} has the name of a published file and another content (SHA-256 {sha256}, "
            f"expected {FILES[path.name].sha256}): download it again, or rename it if it is "
            "your own"
        )
    logging.warning(
        "%s is none of the published files: its own metadata and the flags are used", path.name
    )
    return None


def choose_bands(flag: tuple[str, ...] | None, stored: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names of the bands of the inputs, in order: without any statement `BANDS`.

    Args:
      flag: names given by the user; None if the flag was not given.
      stored: names in the metadata of the file, if it is one of this project.

    Raises:
      InputError: the names repeat, or the flag contradicts the file.
    """
    if flag is not None and (not all(flag) or len(set(flag)) < len(flag)):
        raise InputError(f"--bands is {','.join(flag)!r}: expected names, each once, such as VV")
    if flag and stored and flag != stored:
        raise InputError(
            f"--bands is {','.join(flag)}, and the metadata of the file have {', '.join(stored)}: "
            "leave the flag out"
        )
    return flag or stored or BANDS


def choose_statistics(
    flag: str | None,
    published: PublishedFile | None,
    stored: Statistics | None,
    bands: Sequence[str] = BANDS,
) -> Statistics:
    """Return the statistics with which the inputs of a model are standardised.

    Args:
      flag: an entry of `PUBLISHED_STATISTICS`, or the means and then the deviations of the bands
        in dB, "MEAN_VH,MEAN_VV,STD_VH,STD_VV"; None if the flag was not given.
      published: the released file, if it is one.
      stored: statistics in the metadata of the file, if it is one of this project.
      bands: names of the bands.

    Raises:
      InputError: the statistics are unknown, or the flag contradicts the file.
    """
    known = PUBLISHED_STATISTICS[published.statistics] if published else stored
    if flag is None:
        if known is None:
            raise InputError(
                "a .pth does not hold the statistics of its inputs, and features are useless "
                f"with wrong ones: give --statistics, one of {', '.join(PUBLISHED_STATISTICS)}, or "
                f"{_form(bands)} in dB"
            )
        return known
    if "," in flag:
        chosen = _parse_statistics(flag, bands)
    else:
        chosen = _select(look_up(PUBLISHED_STATISTICS, flag, "--statistics"), flag, bands)
    if known and (known.mean, known.std) != (chosen.mean, chosen.std):
        raise InputError(
            f"--statistics is {flag}, and the file was trained with mean {known.mean} and std "
            f"{known.std} ({known.computed_on}): leave the flag out"
        )
    return chosen


def _form(bands: Sequence[str]) -> str:
    return ",".join(f"{name}_{band}" for name in ("MEAN", "STD") for band in bands)


def _select(published: Statistics, flag: str, bands: Sequence[str]) -> Statistics:
    """Return published statistics of some of `BANDS`.

    Raises:
      InputError: they have no value for a band.
    """
    if not set(bands) <= set(BANDS):
        raise InputError(
            f"--statistics is {flag}, which has {', '.join(BANDS)}, and the model expects "
            f"{', '.join(bands)}: give {_form(bands)} in dB"
        )
    return published.select([BANDS.index(band) for band in bands])


def _parse_statistics(text: str, bands: Sequence[str]) -> Statistics:
    try:
        numbers = [float(part) for part in text.split(",")] if text.isascii() else []
    except ValueError:
        numbers = []
    mean, std = tuple(numbers[: len(bands)]), tuple(numbers[len(bands) :])
    try:
        check_statistics(mean, std, bands)
    except ValueError as error:
        raise InputError(
            f"--statistics is {text[:100]!r} ({error}): expected {_form(bands)}"
        ) from error
    return Statistics(mean, std, f"given by hand: --statistics={text}")


def check_statistics(mean: Sequence[float], std: Sequence[float], bands: Sequence[str]) -> None:
    """Raise unless the values can be statistics of backscatter in dB, one per band.

    Raises:
      ValueError: states what was expected.
    """
    if len(mean) != len(bands) or len(std) != len(bands):
        raise ValueError(f"expected {len(bands)} means and deviations")
    if not all(-100 < value < 100 for value in mean) or not all(0.01 < v < 100 for v in std):
        raise ValueError("expected means within 100 dB of 0, deviations from 0.01 to 100 dB")
