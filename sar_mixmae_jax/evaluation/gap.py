"""How well the days between two images alone tell floods from dry pairs, without any picture.

Where a sequence is flooded from some day on, its flooded images are ever farther from the last dry
one, so a long gap alone can give a flood away. A model is told no dates, but what
changes with time, such as vegetation, tells them: this measures how much there is to gain from it.
"""

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from sar_mixmae_jax.evaluation.flood_figures import NAMES
from sar_mixmae_jax.evaluation.flood_metrics import Columns, View, views
from sar_mixmae_jax.evaluation.table import number

AS_PUBLISHED = ("all", "by_pair")


def gap_alone(labels: np.ndarray, columns: Columns, headline: list[str]) -> list[dict[str, Any]]:
    """Average precision and AUC of "gap_days" as the score, the longest gap the surest flood.

    Args:
      labels: (n,) 1 = flood.
      columns: as of `Predictions`; pairs whose gap is unknown are left out.
      headline: path of the headline view.

    Returns:
      `view` (path), `rows`, `average_precision`, `auc` and `prevalence` for the headline and for
      all pairs, each counting once; None where not both answers are there. Nothing without gaps.
    """
    if "gap_days" not in columns:
        return []
    asked = (tuple(headline), AS_PUBLISHED)
    return [
        _separation(view, labels, columns["gap_days"])
        for view in sorted(views(labels, columns), key=lambda one: one.path != asked[0])
        if view.path in asked
    ]


def _separation(view: View, labels: np.ndarray, gaps: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(gaps[view.rows])
    true, days, weights = labels[view.rows][known], gaps[view.rows][known], view.weights[known]
    found = {"view": list(view.path), "rows": int(known.sum())}
    if len(np.unique(true)) < 2:
        return found | dict.fromkeys(("average_precision", "auc", "prevalence"))
    return found | {
        "average_precision": float(average_precision_score(true, days, sample_weight=weights)),
        "auc": float(roc_auc_score(true, days, sample_weight=weights)),
        "prevalence": float(np.average(true, weights=weights)),
    }


def sentence(found: list[dict[str, Any]]) -> str:
    """One line for the report; empty without gaps."""
    if not any(one["rows"] for one in found):
        return ""
    parts: dict[str, list[str]] = {}
    for one in found:
        values = f"AUC {number(one['auc'])}, AP {number(one['average_precision'])}"
        text = f"{values} where prevalence is {number(one['prevalence'])}"
        parts.setdefault(text, []).append(", ".join(NAMES[name] for name in one["view"]))
    told = "; ".join(f"{text} ({' = '.join(of)})" for text, of in parts.items())
    return f"The gap in days alone, no picture (AUC 0.5: tells nothing): {told}."
