"""Metadata that this project stores beside the tensors of an exported file, as JSON."""

import dataclasses
import json
from typing import Any

from sar_mixmae_jax.data.metadata import BANDS, Statistics
from sar_mixmae_jax.models.heads import POOLINGS, TILINGS
from sar_mixmae_jax.objectives.speckle_filter import SpeckleFilter
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.tasks.registry import task_names
from sar_mixmae_jax.torch_interop.published_checkpoints import check_statistics
from sar_mixmae_jax.training.migration import ARCHITECTURE, rename
from sar_mixmae_jax.utils.errors import check_name
from sar_mixmae_jax.utils.typed_json import from_json, to_json

MAX_LENGTH = 100_000
"""Longest text that is parsed, characters."""


@dataclasses.dataclass(frozen=True)
class TensorFileMetadata:
    """Properties of a model that its tensors do not show.

    Attributes:
      statistics: with which inputs are standardised.
      task: str, name of the task of a fine-tuned model; None for other models.
      classes: names of its outputs.
      decoder_num_heads: int, of a pretraining model; None for other models.
      tiling: str, of a flood detector.
      pooling: str, of a flood detector.
      dataset: str, name of the dataset it was last trained on.
      weighting: weighting of its pretraining loss; None for other models, and in files that lack
        it.
      caveats: differences of the published class from this model, each a predicate of the file.
      bands: names of its inputs, in order.
      speckle: filter of its inputs; None: none.
    """

    statistics: Statistics
    task: str | None
    classes: tuple[str, ...]
    decoder_num_heads: int | None
    tiling: str
    pooling: str
    dataset: str
    weighting: Weighting | None = None
    caveats: tuple[str, ...] = ()
    bands: tuple[str, ...] = BANDS
    speckle: SpeckleFilter | None = None

    def __post_init__(self) -> None:
        if len(set(self.bands)) < len(self.bands) or not all(0 < len(b) <= 20 for b in self.bands):
            raise ValueError(f"bands are {str(self.bands)[:50]}")
        check_statistics(self.statistics.mean, self.statistics.std, self.bands)
        if self.task is not None:
            check_name(task_names(), self.task, "task")
        if not (self.decoder_num_heads is None or 1 <= self.decoder_num_heads <= 1024):
            raise ValueError(f"decoder_num_heads is {self.decoder_num_heads}")
        check_name(TILINGS, self.tiling, "tiling")
        check_name(POOLINGS, self.pooling, "pooling")


def metadata_to_text(metadata: TensorFileMetadata) -> str:
    """Return metadata as JSON."""
    return json.dumps({**to_json(metadata), "unit": "dB"})


def metadata_from_text(text: str | None) -> TensorFileMetadata | None:
    """Return the metadata of a file; None if it has none, or none of this project.

    The file may come from anywhere, so that every field is checked.
    """
    try:
        if text is None or len(text) > MAX_LENGTH:
            return None
        fields = rename(from_json(dict[str, Any], json.loads(text)), ARCHITECTURE)
        if fields["unit"] != "dB" or not fields["bands"]:
            return None
        return from_json(TensorFileMetadata, fields)
    except (ValueError, KeyError, RecursionError):
        return None
