"""Metadata that this project stores beside the tensors of an exported file, as JSON."""

import dataclasses
import json
from typing import Any

from sar_mixmae_jax.data.bigearthnet import BandStatistics
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.models.heads import POOLINGS, TILINGS
from sar_mixmae_jax.tasks.registry import task_names
from sar_mixmae_jax.torch_interop.published_checkpoints import check_statistics
from sar_mixmae_jax.utils.errors import InputError

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
    """

    statistics: BandStatistics
    task: str | None
    classes: tuple[str, ...]
    decoder_num_heads: int | None
    tiling: str
    pooling: str
    dataset: str


def metadata_to_text(metadata: TensorFileMetadata) -> str:
    """Return metadata as JSON."""
    fields = dataclasses.asdict(metadata) | {"statistics": metadata.statistics._asdict()}
    return json.dumps({**fields, "bands": BANDS, "unit": "dB"})


def metadata_from_text(text: str | None) -> TensorFileMetadata | None:
    """Return the metadata of a file; None if it has none, or none of this project.

    The file may come from anywhere, so that every field is checked. `decoder_num_heads` was called
    `decoder_heads` in version 0.1.

    Raises:
      InputError: the model expects other bands.
    """
    try:
        if text is None or len(text) > MAX_LENGTH:
            return None
        fields = json.loads(text)
        bands = tuple(_text(name)[:20] for name in fields["bands"])
        if fields["unit"] != "dB":
            raise ValueError("the unit is not dB")
        old_name = "decoder_heads" if "decoder_heads" in fields else "decoder_num_heads"
        metadata = TensorFileMetadata(
            statistics=_statistics(fields["statistics"]),
            task=_one_of((None, *task_names()), fields["task"]),
            classes=tuple(_text(name) for name in fields["classes"]),
            decoder_num_heads=_one_of((None, *range(1, 1025)), fields[old_name]),
            tiling=_one_of(TILINGS, fields["tiling"]),
            pooling=_one_of(POOLINGS, fields["pooling"]),
            dataset=_text(fields["dataset"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if bands != BANDS:
        raise InputError(
            f"the model expects the bands {', '.join(bands[:5])}; only models of "
            f"{', '.join(BANDS)} in this order can be converted"
        )
    return metadata


def _statistics(fields: Any) -> BandStatistics:
    mean, std = (tuple(map(_number, list(fields[name]))) for name in ("mean", "std"))
    check_statistics(mean, std)
    return BandStatistics(mean, std, _text(fields["of"]))


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _one_of(known: Any, value: Any) -> Any:
    if isinstance(value, bool) or value not in known:
        raise ValueError(f"{value!r} is unknown")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value
