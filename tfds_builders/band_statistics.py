"""Statistics of the bands over any number of patches, and the form that training uses."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sar_mixmae_jax.utils.errors import InputError


@dataclasses.dataclass
class BandMoments:
    """Sums over patches; every field is a (bands,) array.

    Attributes:
      pixels: number of pixels.
      valid: number of pixels that are not nodata.
      floored: number of pixels whose linear power was at or below 0, and became `FLOOR_DB`.
      faint: number of pixels whose linear power was positive, below -90 dB, and became `FLOOR_DB`.
      total: sum of the values, dB.
      squares: sum of their squares, dB².
      patches: number of patches with a valid pixel.
      patch_stds: sum of the standard deviations of the patches, dB.
    """

    pixels: np.ndarray
    valid: np.ndarray
    floored: np.ndarray
    faint: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    patches: np.ndarray
    patch_stds: np.ndarray

    @classmethod
    def zeros(cls, bands: int) -> "BandMoments":
        """Return the sums over no patches."""
        return cls(*(np.zeros(bands) for _ in dataclasses.fields(cls)))

    @classmethod
    def from_patches(
        cls, patches: np.ndarray, floor_counts: np.ndarray | None = None
    ) -> "BandMoments":
        """Return the sums over patches.

        Args:
          patches: (patch, row, column, band) dB, NaN = nodata.
          floor_counts: (2, band) numbers for `floored` and `faint`; None: none.
        """
        count, rows, columns, bands = patches.shape
        values = np.empty((bands, count, rows * columns))  # contiguous bands are many times faster
        np.copyto(values, np.moveaxis(patches.reshape(count, -1, bands), -1, 0))
        nodata = np.isnan(values)
        valid = (~nodata).sum(-1)  # (band, patch)
        np.copyto(values, 0.0, where=nodata)
        total, squares = values.sum(-1), np.einsum("bpx,bpx->bp", values, values)
        dark = np.zeros((2, bands)) if floor_counts is None else floor_counts
        divisor = np.maximum(valid, 1)
        variance = squares / divisor - np.square(total / divisor)
        return cls(
            np.full(bands, float(count * rows * columns)),
            valid.sum(-1).astype(float),
            dark[0].astype(float),
            dark[1].astype(float),
            total.sum(-1),
            squares.sum(-1),
            (valid > 0).sum(-1).astype(float),
            np.sqrt(np.maximum(variance, 0.0)).sum(-1),
        )

    def __add__(self, other: "BandMoments") -> "BandMoments":
        """Return the sums over both sets of patches."""
        return BandMoments(
            *(
                getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            )
        )

    def to_json(self) -> dict[str, list[float]]:
        """Return the fields as lists, without loss."""
        return {
            field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "BandMoments":
        """Return the sums that `to_json` was called on."""
        return cls(*(np.array(values[field.name], float) for field in dataclasses.fields(cls)))

    def mean(self) -> list[float]:
        """Return the mean over all valid pixels, dB, per band; NaN for a band without any."""
        return [_ratio(total, valid) for total, valid in zip(self.total, self.valid, strict=True)]

    def global_std(self) -> list[float]:
        """Return the standard deviation over all valid pixels of all patches, dB, per band."""
        return [
            math.sqrt(max(_ratio(squares, valid) - mean**2, 0.0))
            for squares, valid, mean in zip(self.squares, self.valid, self.mean(), strict=True)
        ]

    def mean_patch_std(self) -> list[float]:
        """Return the mean of the standard deviations of the patches, dB, per band."""
        return [
            _ratio(total, count) for total, count in zip(self.patch_stds, self.patches, strict=True)
        ]

    def nodata_fraction(self) -> list[float]:
        """Return the fraction of pixels that are nodata, per band."""
        return [1.0 - _ratio(v, n) for v, n in zip(self.valid, self.pixels, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Return all statistics as JSON values by the names that metadata has for them."""
        return {
            "patches": int(self.patches.max()),
            "mean": self.mean(),
            "global_deviation": self.global_std(),
            "mean_patch_deviation": self.mean_patch_std(),
            "nodata_share": self.nodata_fraction(),
            "floored_pixels": int(self.floored.sum()),
            "faint_pixels": int(self.faint.sum()),
        }


STD_KINDS = {
    "global": (BandMoments.global_std, "the deviation over all pixels"),
    "per_patch": (BandMoments.mean_patch_std, "the mean of per-patch deviations"),
}
"""Kinds of standard deviation by name: method, and description."""


def dataset_statistics(
    moments: BandMoments, std_kind: str, splits: Sequence[str], bands: Sequence[str]
) -> dict[str, Any]:
    """Return statistics in the form of a dataset's metadata.

    Args:
      moments: sums over all patches of the splits.
      std_kind: an entry of `STD_KINDS`.
      splits: names of the splits.
      bands: names of the bands.

    Returns:
      "mean" and "std" per band, dB, and "of", the description of both.

    Raises:
      InputError: the mean of a band is not finite, or its standard deviation is 0 or not finite.
    """
    compute, meaning = STD_KINDS[std_kind]
    names = f"the split{'s' if len(splits) > 1 else ''} {', '.join(splits)}"
    mean, std = moments.mean(), compute(moments)
    for band, band_mean, band_std in zip(bands, mean, std, strict=True):
        if not (math.isfinite(band_mean) and math.isfinite(band_std) and band_std > 1e-6):
            raise InputError(
                f"band {band} has the mean {band_mean:g} dB and the deviation {band_std:g} dB in "
                f"{names}, expected numbers to standardise with: nothing was written"
            )
    of = (
        f"all valid pixels of the {int(moments.patches.max())} patches of {names}; std is {meaning}"
    )
    return {"mean": mean, "std": std, "of": of}


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else math.nan
