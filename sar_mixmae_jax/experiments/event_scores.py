"""Scores of water in events that were not trained on, pooled over all chips."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sar_mixmae_jax.evaluation.confusion import confusion_intervals, pooled_rates
from sar_mixmae_jax.experiments.seed_statistics import spread
from sar_mixmae_jax.utils.tables import markdown_table

REPLICATES = 2000
RATE = "iou"


def score_confusions(
    counts: Mapping[str, Sequence[np.ndarray]], events: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Return the IoU of water by method.

    Args:
      counts: (chip, 2, 2) confusion matrices of each seed, by method; one for all seeds of a
        baseline.
      events: (chips,) name of the event of each chip.

    Returns:
      By method: `iou`, mean over seeds of the IoU pooled over all chips; `std` over seeds, None
      for one; `low` and `high`, the 95 % interval over chips of the counts of all seeds together;
      `by_event`, the mean over seeds.
    """
    scores = {}
    for name, by_seed in counts.items():
        pooled = [float(pooled_rates(matrices.sum(0))[RATE]) for matrices in by_seed]
        values = spread(pooled)
        chips = np.arange(len(events))
        interval = confusion_intervals({("all",): np.sum(by_seed, axis=0)}, chips, REPLICATES, 0)
        inside = interval["all"][RATE]
        scores[name] = {
            RATE: values.mean,
            "std": values.std,
            "low": inside.get("low"),
            "high": inside.get("high"),
            "by_event": {
                str(event): _event_rate(by_seed, events == event) for event in np.unique(events)
            },
        }
    return scores


def _event_rate(by_seed: Sequence[np.ndarray], inside: np.ndarray) -> float | None:
    rates = [float(pooled_rates(matrices[inside].sum(0))[RATE]) for matrices in by_seed]
    return float(np.mean(rates)) if np.isfinite(rates).all() else None


def score_table(scores: Mapping[str, Mapping[str, Any]], events: Sequence[str]) -> str:
    """Return the scores as Markdown, with what they mean."""
    rows = [list(_cells(name, values, events)) for name, values in scores.items()]
    head = ["IoU of water", "pooled ± seeds", "95 % interval over chips", *events]
    note = (
        "Each chip is predicted by models that saw no label of its event. Pooled over all labelled "
        "pixels; pixels without a measurement count as predicted dry. The interval resamples chips "
        "and holds for these events only: with fewer than about 20 chips it says little."
    )
    return "\n".join(markdown_table(head, rows)) + f"\n\n{note}\n"


def _cells(name: str, values: Mapping[str, Any], events: Sequence[str]) -> Iterator[str]:
    def form(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    yield name
    yield form(values[RATE]) + ("" if values["std"] is None else f" ± {values['std']:.3f}")
    yield f"{form(values['low'])} to {form(values['high'])}"
    yield from (form(values["by_event"][event]) for event in events)
