"""Statistics of a band over any number of patches, added up patch by patch."""

import dataclasses
import math
from typing import Any

import numpy as np

SUMS = ("pixels", "valid", "total", "squares", "patches", "deviations")


@dataclasses.dataclass
class Moments:
    """Sums over patches; every field has one number for each band.

    Attributes:
      pixels: all pixels.
      valid: those with a measurement.
      total: sum of the values, dB.
      squares: sum of their squares, dB².
      patches: with at least one measurement.
      deviations: sum of the patches' standard deviations, dB.
    """

    pixels: np.ndarray
    valid: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    patches: np.ndarray
    deviations: np.ndarray

    @classmethod
    def none(cls, bands: int) -> "Moments":
        """Of no patch."""
        return cls(*(np.zeros(bands) for _ in SUMS))

    @classmethod
    def of(cls, patch: np.ndarray) -> "Moments":
        """Of one patch (row, column, band) in dB, NaN = nodata."""
        values = patch.reshape(-1, patch.shape[-1]).astype(np.float64)
        measured = ~np.isnan(values)
        valid = measured.sum(0)
        values = np.where(measured, values, 0.0)
        total, squares = values.sum(0), np.square(values).sum(0)
        mean = total / np.maximum(valid, 1)
        spread = np.where(measured, values - mean, 0.0)
        deviation = np.sqrt(np.square(spread).sum(0) / np.maximum(valid, 1))
        return cls(
            np.full(valid.shape, float(len(values))),
            valid.astype(float),
            total,
            squares,
            (valid > 0).astype(float),
            deviation,
        )

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets of patches."""
        return Moments(*(getattr(self, name) + getattr(other, name) for name in SUMS))

    def to_json(self) -> dict[str, list[float]]:
        """As plain lists, exactly."""
        return {name: getattr(self, name).tolist() for name in SUMS}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Moments":
        """The way back from `to_json`."""
        return cls(*(np.array(values[name], float) for name in SUMS))

    def mean(self) -> list[float]:
        """Of all valid pixels, dB; NaN for a band without any."""
        return [_ratio(total, valid) for total, valid in zip(self.total, self.valid, strict=True)]

    def global_deviation(self) -> list[float]:
        """The standard deviation over all valid pixels of all patches, dB."""
        return [
            math.sqrt(max(_ratio(squares, valid) - mean**2, 0.0))
            for squares, valid, mean in zip(self.squares, self.valid, self.mean(), strict=True)
        ]

    def mean_patch_deviation(self) -> list[float]:
        """The mean of the patches' own standard deviations, dB: smaller than the global one."""
        return [_ratio(sum_, n) for sum_, n in zip(self.deviations, self.patches, strict=True)]

    def describe(self) -> dict[str, Any]:
        """All of them by name."""
        return {
            "patches": int(self.patches.max()),
            "mean": self.mean(),
            "global_deviation": self.global_deviation(),
            "mean_patch_deviation": self.mean_patch_deviation(),
            "nodata_share": self.nodata_share(),
        }

    def nodata_share(self) -> list[float]:
        """Share of pixels without a measurement."""
        return [1.0 - _ratio(v, n) for v, n in zip(self.valid, self.pixels, strict=True)]


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else math.nan
