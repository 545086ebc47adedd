"""What a file of this project says beside its tensors, as JSON; read with suspicion."""

import dataclasses
import json
from typing import Any

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.models.heads import POOLINGS, TILINGS
from sar_mixmae_jax.tasks.registry import task_names
from sar_mixmae_jax.torch_interop.published_checkpoints import Statistics, check_decibels
from sar_mixmae_jax.utils.errors import InputError

LONGEST = 100_000
"""Characters of a note."""


@dataclasses.dataclass(frozen=True)
class TensorFileMetadata:
    """What tensors do not say.

    Attributes:
      statistics: of the inputs, VH and VV.
      task: of a tuned model; None of others.
      classes: of its outputs.
      decoder_num_heads: of a pretraining; None of others.
      tiling: of a flood detector.
      pooling: of a flood detector.
      dataset: what it was trained on last, for readers.
    """

    statistics: Statistics
    task: str | None
    classes: tuple[str, ...]
    decoder_num_heads: int | None
    tiling: str
    pooling: str
    dataset: str


def metadata_to_text(note: TensorFileMetadata) -> str:
    """A note as a text; see `read`."""
    fields = dataclasses.asdict(note) | {"statistics": note.statistics._asdict()}
    return json.dumps({**fields, "bands": BANDS, "unit": "dB"})


def metadata_from_text(text: str | None) -> TensorFileMetadata | None:
    """A note; None where a file has none, or one that is not of this project.

    Raises:
      InputError: it says that the model takes other bands.
    """
    try:
        if text is None or len(text) > LONGEST:
            return None
        fields = json.loads(text)
        bands = tuple(_text(name)[:20] for name in fields["bands"])
        if fields["unit"] != "dB":
            raise ValueError("its unit is not dB")
        note = TensorFileMetadata(
            statistics=_statistics(fields["statistics"]),
            task=_one_of((None, *task_names()), fields["task"]),
            classes=tuple(_text(name) for name in fields["classes"]),
            decoder_num_heads=_one_of((None, *range(1, 1025)), fields["decoder_num_heads"]),
            tiling=_one_of(TILINGS, fields["tiling"]),
            pooling=_one_of(POOLINGS, fields["pooling"]),
            dataset=_text(fields["dataset"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if bands != BANDS:
        raise InputError(
            f"it takes the bands {', '.join(bands[:5])}, expected {', '.join(BANDS)} in this order"
        )
    return note


def _statistics(fields: Any) -> Statistics:
    mean, std = (tuple(_number(one) for one in list(fields[name])) for name in ("mean", "std"))
    check_decibels(mean, std)
    return Statistics(mean, std, _text(fields["of"]))


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _one_of(known: Any, value: Any) -> Any:
    if isinstance(value, bool) or value not in known:
        raise ValueError(f"{value!r} is not known")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
