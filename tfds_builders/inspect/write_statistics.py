"""Makes what was measured on a dataset the statistics with which training standardises it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write


def write_statistics(folder: Path, statistics: Mapping[str, Any]) -> None:
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
            atomic_write(path, json.dumps(metadata).encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be rewritten ({first_line(error)}): the statistics are as they were"
        ) from error
