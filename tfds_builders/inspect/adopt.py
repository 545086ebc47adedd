"""Makes what was measured on a dataset the statistics with which training standardises it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_mixmae_jax.errors import InputError, first_line
from tfds_builders.inspect.files import write_whole
from tfds_builders.moments import Moments

DEVIATIONS = {
    "global": (Moments.global_deviation, "the deviation over all pixels"),
    "per_patch": (Moments.mean_patch_deviation, "the mean of per-patch deviations"),
}
"""The deviations by name: how each is computed, and what it is."""


def own_statistics(
    moments: Moments, deviation: str, splits: Sequence[str], bands: Sequence[str]
) -> dict[str, Any]:
    """Statistics in the form of a dataset's metadata.

    Args:
      moments: of all patches of the splits.
      deviation: an entry of `DEVIATIONS`.
      splits: that were read.
      bands: their names.

    Raises:
      InputError: a band has no mean, or no deviation to divide by.
    """
    compute, meaning = DEVIATIONS[deviation]
    mean, std = moments.mean(), compute(moments)
    for band, average, spread in zip(bands, mean, std, strict=True):
        if not (math.isfinite(average) and math.isfinite(spread) and spread > 1e-6):
            raise InputError(
                f"band {band} has the mean {average:g} dB and the deviation {spread:g} dB in "
                f"{_names(splits)}, expected numbers to standardise with: nothing was written"
            )
    of = (
        f"all valid pixels of the {int(moments.patches.max())} patches of {_names(splits)}; std "
        f"is {meaning}"
    )
    return {"mean": mean, "std": std, "of": of}


def adopt(folder: Path, statistics: Mapping[str, Any]) -> None:
    """Rewrites `metadata.json` of a dataset; what was there goes to `statistics_before`.

    Statistics that were replaced earlier stay, each under `before` of those that replaced them.

    Args:
      folder: of the dataset.
      statistics: mean, std and what they are of.

    Raises:
      InputError: the file cannot be read or written.
    """
    path = folder / "metadata.json"
    try:
        metadata = json.loads(path.read_text())
        before = metadata["statistics"]
        if before != statistics:
            kept = dict(before or {})
            if metadata.get("statistics_before"):
                kept["before"] = metadata["statistics_before"]
            metadata["statistics_before"] = kept or None
            metadata["statistics"] = dict(statistics)
            write_whole(path, json.dumps(metadata).encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be rewritten ({first_line(error)}): the statistics are as they were"
        ) from error


def _names(splits: Sequence[str]) -> str:
    return f"the split{'s' if len(splits) > 1 else ''} {', '.join(splits)}"
