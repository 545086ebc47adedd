"""Statistics of a band over any number of patches, added up; and those that training uses."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sar_mixmae_jax.data.metadata import FLOOR_DB
from sar_mixmae_jax.utils.errors import InputError


@dataclasses.dataclass
class BandMoments:
    """Sums over patches; every field has one number for each band.

    Attributes:
      pixels: all pixels.
      valid: those with a measurement.
      floored: those at `FLOOR_DB` exactly: linear power of 0 and below.
      total: sum of the values, dB.
      squares: sum of their squares, dB².
      patches: with at least one measurement.
      deviations: sum of the patches' standard deviations, dB.
    """

    pixels: np.ndarray
    valid: np.ndarray
    floored: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    patches: np.ndarray
    deviations: np.ndarray

    @classmethod
    def zeros(cls, bands: int) -> "BandMoments":
        """Of no patch."""
        return cls(*(np.zeros(bands) for _ in dataclasses.fields(cls)))

    @classmethod
    def from_patches(cls, patches: np.ndarray) -> "BandMoments":
        """Of (patch, row, column, band) dB, NaN = nodata."""
        count, rows, columns, bands = patches.shape
        values = np.empty((bands, count, rows * columns))  # bands apart: many times faster
        np.copyto(values, np.moveaxis(patches.reshape(count, -1, bands), -1, 0))
        measured = ~np.isnan(values)
        valid = measured.sum(-1)  # (band, patch)
        np.copyto(values, 0.0, where=~measured)
        total, squares = values.sum(-1), np.einsum("bpx,bpx->bp", values, values)
        several = np.maximum(valid, 1)
        variance = squares / several - np.square(total / several)
        return cls(
            np.full(bands, float(count * rows * columns)),
            valid.sum(-1).astype(float),
            (values == FLOOR_DB).sum((1, 2)).astype(float),
            total.sum(-1),
            squares.sum(-1),
            (valid > 0).sum(-1).astype(float),
            np.sqrt(np.maximum(variance, 0.0)).sum(-1),
        )

    def __add__(self, other: "BandMoments") -> "BandMoments":
        """Of both sets of patches."""
        return BandMoments(
            *(
                getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            )
        )

    def to_json(self) -> dict[str, list[float]]:
        """As plain lists, exactly."""
        return {
            field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "BandMoments":
        """The way back from `to_json`."""
        return cls(*(np.array(values[field.name], float) for field in dataclasses.fields(cls)))

    def mean(self) -> list[float]:
        """Of all valid pixels, dB; NaN for a band without any."""
        return [_ratio(total, valid) for total, valid in zip(self.total, self.valid, strict=True)]

    def global_std(self) -> list[float]:
        """The standard deviation over all valid pixels of all patches, dB."""
        return [
            math.sqrt(max(_ratio(squares, valid) - mean**2, 0.0))
            for squares, valid, mean in zip(self.squares, self.valid, self.mean(), strict=True)
        ]

    def mean_patch_std(self) -> list[float]:
        """The mean of the patches' own standard deviations, dB: smaller than the global one."""
        return [_ratio(sum_, n) for sum_, n in zip(self.deviations, self.patches, strict=True)]

    def nodata_fraction(self) -> list[float]:
        """Share of pixels without a measurement."""
        return [1.0 - _ratio(v, n) for v, n in zip(self.valid, self.pixels, strict=True)]

    def describe(self) -> dict[str, Any]:
        """All of them by name."""
        return {
            "patches": int(self.patches.max()),
            "mean": self.mean(),
            "global_deviation": self.global_std(),
            "mean_patch_deviation": self.mean_patch_std(),
            "nodata_share": self.nodata_fraction(),
            "floored_pixels": int(self.floored.sum()),
        }


STD_KINDS = {
    "global": (BandMoments.global_std, "the deviation over all pixels"),
    "per_patch": (BandMoments.mean_patch_std, "the mean of per-patch deviations"),
}
"""The deviations by name: how each is computed, and what it is."""


def dataset_statistics(
    moments: BandMoments, deviation: str, splits: Sequence[str], bands: Sequence[str]
) -> dict[str, Any]:
    """Statistics in the form of a dataset's metadata.

    Args:
      moments: of all patches of the splits.
      deviation: an entry of `STD_KINDS`.
      splits: that were read.
      bands: their names.

    Raises:
      InputError: a band has no mean, or no deviation to divide by.
    """
    compute, meaning = STD_KINDS[deviation]
    names = f"the split{'s' if len(splits) > 1 else ''} {', '.join(splits)}"
    mean, std = moments.mean(), compute(moments)
    for band, average, spread in zip(bands, mean, std, strict=True):
        if not (math.isfinite(average) and math.isfinite(spread) and spread > 1e-6):
            raise InputError(
                f"band {band} has the mean {average:g} dB and the deviation {spread:g} dB in "
                f"{names}, expected numbers to standardise with: nothing was written"
            )
    of = (
        f"all valid pixels of the {int(moments.patches.max())} patches of {names}; std is {meaning}"
    )
    return {"mean": mean, "std": std, "of": of}


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else math.nan
