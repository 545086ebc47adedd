"""Scores of water in events that were not trained on, pooled over all chips."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sar_mixmae_jax.evaluation.bootstrap import Path, Sampled, interval
from sar_mixmae_jax.evaluation.confusion import confusion_intervals, pooled_rates
from sar_mixmae_jax.experiments.seed_statistics import corrected_confidence, difference, spread
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
        values = spread(_by_seed(by_seed).values())
        chips = np.arange(len(events))
        summed: dict[Path, np.ndarray] = {("all",): np.sum(by_seed, axis=0)}
        inside = confusion_intervals(summed, chips, REPLICATES, 0)["all"][RATE]
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


def compare_confusions(
    counts: Mapping[str, Sequence[np.ndarray]], pairs: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Return differences in the IoU of water, pooled over all chips, paired by seed.

    Args:
      counts: of `score_confusions`.
      pairs: names of two methods; the second is subtracted.

    Returns:
      By "first - second": `seeds`, the fields of `seed_statistics.Difference`, at a confidence that
      is corrected for the number of pairs (Bonferroni); `chips`, `bootstrap.interval` of the mean
      over seeds, with the same draws of chips for all models.
    """
    differences = {}
    confidence = corrected_confidence(len(pairs))
    for pair in pairs:
        first, second = (counts[name] for name in pair)
        chips = len(first[0])
        draws = np.random.default_rng(0).multinomial(chips, np.full(chips, 1 / chips), REPLICATES)
        resampled = [_resampled(by_seed, draws) for by_seed in (first, second)]
        with_water = int((first[0][:, 1].sum(-1) > 0).sum())
        by_seed = _by_seed(first), _by_seed(second)
        over_seeds = difference(*by_seed, higher_is_better=True, confidence=confidence)
        differences[" - ".join(pair)] = {
            "seeds": over_seeds._asdict(),
            "chips": interval(Sampled(resampled[0] - resampled[1], with_water, "positives")),
        }
    return differences


def _by_seed(by_seed: Sequence[np.ndarray]) -> dict[int | None, float]:
    return {
        seed: float(pooled_rates(matrices.sum(0))[RATE]) for seed, matrices in enumerate(by_seed)
    }


def _resampled(by_seed: Sequence[np.ndarray], draws: np.ndarray) -> np.ndarray:
    """Return the (replicate,) mean rate of the seeds; draws are (replicate, chip) counts."""
    rates = [
        pooled_rates((draws @ matrices.reshape(len(matrices), -1)).reshape(-1, 2, 2))[RATE]
        for matrices in by_seed
    ]
    return np.mean(rates, axis=0)


def _event_rate(by_seed: Sequence[np.ndarray], inside: np.ndarray) -> float | None:
    rates = [float(pooled_rates(matrices[inside].sum(0))[RATE]) for matrices in by_seed]
    return float(np.mean(rates)) if np.isfinite(rates).all() else None


def score_table(scores: Mapping[str, Mapping[str, Any]], events: Sequence[str]) -> str:
    """Return the scores as Markdown, with what they mean."""
    rows = [list(_cells(name, values, events)) for name, values in scores.items()]
    head = ["IoU of water", "pooled ± seeds", "95 % interval over chips", *events]
    note = (
        "Each chip is predicted by models that saw no label of its event. Pooled over all labelled "
        "pixels; pixels without a measurement count as predicted dry. Chips of one event share a "
        "model. Intervals over chips resample chips and keep the models, so they hold for these "
        "events only; with fewer than about 20 chips they say little. The logistic regression is "
        "fitted to the training chips of each event and seed. The published thresholds may have "
        "been chosen on these events."
    )
    return "\n".join(markdown_table(head, rows)) + f"\n\n{note}\n"


def difference_table(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results of `compare_confusions` as Markdown, with what they mean."""
    rows = [
        [
            name,
            _form(values["seeds"]["mean"], "+"),
            _range(values["seeds"], "+"),
            values["seeds"]["verdict"],
            _range(values["chips"], "+"),
        ]
        for name, values in differences.items()
    ]
    head = ["difference in IoU", "mean", "95 % over seeds", "over seeds", "95 % over chips"]
    note = (
        "Models of one seed share training chips, their order and the first weights of the head. "
        "The interval over seeds is Student's t of these pairs: chance in training and in the "
        "choice of training chips, not the choice of predicted chips; its confidence is 95 % for "
        "all differences together (Bonferroni). That over chips draws the same chips for both and "
        "keeps the models. Neither covers other events."
    )
    return "\n".join(markdown_table(head, rows)) + f"\n\n{note}\n"


def _form(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"


def _range(values: Mapping[str, Any], sign: str = "") -> str:
    return f"{_form(values['low'], sign)} to {_form(values['high'], sign)}"


def _cells(name: str, values: Mapping[str, Any], events: Sequence[str]) -> Iterator[str]:
    yield name
    yield _form(values[RATE]) + ("" if values["std"] is None else f" ± {values['std']:.3f}")
    yield _range(values)
    yield from (_form(values["by_event"][event]) for event in events)
