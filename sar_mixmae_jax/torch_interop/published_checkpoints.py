"""The files that the authors published: how to know them, and what they do not say themselves."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from sar_mixmae_jax.data.bigearthnet import PUBLISHED_STATISTICS as STATISTICS
from sar_mixmae_jax.data.bigearthnet import BandStatistics as Statistics
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError, look_up


class Published(NamedTuple):
    """A published file.

    Attributes:
      sha256: of all of it.
      statistics: an entry of `STATISTICS`.
      dataset: what it was trained on last.
      built: the same as it is named here.
      caveat: what results with it must say.
      weighting: of the loss of its pretraining.
    """

    sha256: str
    statistics: str
    dataset: str
    built: str
    caveat: str
    weighting: tuple[str, str] = ("shared_average", "standardised")


BOTH = (
    "its encoder was pretrained on train and validation of BigEarthNet {}, without labels; test "
    "patches of one version of BigEarthNet can be training patches of the other"
)
"""Of published models: the splits of the two versions are not the same."""


FILES = {
    "benv1_pretrain_checkpoint_64.pth": Published(
        "b4f385f96a1eef96c8b32768b57cee79060fe3d920c7273e2c70e43cc1c90700",
        "bigearthnet_v1",
        "BigEarthNet v1",
        "bigearthnet_s1/v1",
        BOTH.format("v1"),
    ),
    "benv1_finetune_checkpoint_best.pth": Published(
        "3778df30224903644d772d151a086d4a1bb006ab61c55ac6534ecb00fe3ae083",
        "bigearthnet_v1",
        "BigEarthNet v1",
        "bigearthnet_s1/v1",
        BOTH.format("v1"),
    ),
    "benv2_pretrain_checkpoint_64.pth": Published(
        "13ab3855a2faee9dc1ca0fb50ba483cc4e0d735b9fc8d1f03e75764c356d0b93",
        "bigearthnet_v2",
        "BigEarthNet v2",
        "bigearthnet_s1/v2",
        BOTH.format("v2"),
    ),
    "benv2_finetune_checkpoint_best.pth": Published(
        "9592399dcc5f34f608a4b558f897a919d4dd4feb06fc975c108e8f4191689c18",
        "bigearthnet_v2",
        "BigEarthNet v2",
        "bigearthnet_s1/v2",
        BOTH.format("v2"),
    ),
    "sen12_finetune_checkpoint_best.pth": Published(
        "33d06401a433191233322a24c551145e53622b6702b4fa9d6d0178cd2392c541",
        "bigearthnet_v1",
        "SEN12-FLOOD",
        "sen12_flood/published",
        "its checkpoint was chosen by its accuracy on the test split, and it began from an encoder "
        "of BigEarthNet v1",
    ),
}
"""By name."""


def file_digest(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
      InputError: it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path} cannot be read (it is no file): name a .pth or .safetensors file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from error


def identify_file(path: Path, sha256: str) -> Published | None:
    """The published file that this is, whatever its name; None, with a note, if it is none.

    Raises:
      InputError: it has the name of one, and another content.
    """
    for name, known in FILES.items():
        if known.sha256 == sha256:
            print(f"{path.name} is {name}, as published")
            return known
    if path.name in FILES:
        raise InputError(
            f"{path} has the name of a published file and another content (SHA-256 {sha256}, "
            f"expected {FILES[path.name].sha256}): fetch it again, or give it another name if it "
            "is your own"
        )
    logging.warning("%s is none of the published files: what it says of itself counts", path.name)
    return None


def published_statistics(
    asked: str | None, known: Published | None, told: Statistics | None
) -> Statistics:
    """What inputs of a model are standardised with.

    Args:
      asked: an entry of `STATISTICS`, or "mean VH,mean VV,std VH,std VV" in dB.
      known: the published file, if it is one.
      told: what the file itself says, if it is one of this project.

    Raises:
      InputError: nobody says what they are, or two say different things.
    """
    said = STATISTICS[known.statistics] if known else told
    if asked is None:
        if said is None:
            raise InputError(
                "a .pth does not say what its inputs were standardised with, and another mean or "
                "deviation makes its features worthless: give --statistics, one of "
                f"{', '.join(STATISTICS)}, or MEAN_VH,MEAN_VV,STD_VH,STD_VV in dB"
            )
        return said
    found = _numbers(asked) if "," in asked else look_up(STATISTICS, asked, "--statistics")
    if said and (said.mean, said.std) != (found.mean, found.std):
        raise InputError(
            f"--statistics is {asked}, and the file is known to have been trained with mean "
            f"{said.mean} and std {said.std} ({said.of}): leave the flag out"
        )
    return found


def _numbers(text: str) -> Statistics:
    try:
        numbers = [float(part) for part in text.split(",")] if text.isascii() else []
    except ValueError:
        numbers = []
    means, stds = tuple(numbers[: len(BANDS)]), tuple(numbers[len(BANDS) :])
    try:
        check_decibels(means, stds)
    except ValueError as error:
        raise InputError(
            f"--statistics is {text[:100]!r} ({error}): expected MEAN_VH,MEAN_VV,STD_VH,STD_VV"
        ) from error
    return Statistics(means, stds, f"given by hand: --statistics={text}")


def check_decibels(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuses what no backscatter has.

    Raises:
      ValueError: says what was expected.
    """
    if len(mean) != len(BANDS) or len(std) != len(BANDS):
        raise ValueError(f"expected {len(BANDS)} means and deviations")
    if not all(-100 < one < 100 for one in mean) or not all(0.01 < one < 100 for one in std):
        raise ValueError("expected means within 100 dB of 0, deviations from 0.01 to 100 dB")
