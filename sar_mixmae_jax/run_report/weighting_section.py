"""Section about the loss weighting and the reconstruction diagnostics of a pretraining run."""

from collections.abc import Mapping

import numpy as np

from sar_mixmae_jax.objectives.diagnostics import NEARLY_CONSTANT, constant_weights_warning
from sar_mixmae_jax.run_report.content import (
    Section,
    make_figure,
    make_section,
    make_table,
    note,
    notice,
)
from sar_mixmae_jax.run_report.history import History, Series, finite, missing_curves, stem
from sar_mixmae_jax.run_report.plots import draw_small_multiples

CURVES = ("explained_variance", "loss_dark_share", "bias_db")
"""Diagnostics that change during training."""

DIAGNOSTICS = {
    "weight_cv": "coefficient of variation of the weights of an image, median over the images; "
    f"below {NEARLY_CONSTANT:g} AdamW nearly cancels the weighting",
    "weight_flat_share": f"share of the images with a coefficient below {NEARLY_CONSTANT:g}",
    "weight_dark_bright": "mean weight of the darkest over that of the brightest tenth of the "
    "pixels, median over the images",
    "weight_p05": "5th percentile of the weights of all valid pixels",
    "weight_p95": "95th percentile of the weights of all valid pixels",
    "loss_dark_share": "share of the weighted loss in the darkest tenth of the pixels",
    "bias_db": "mean of reconstruction minus measurement in dB",
}
"""Diagnostics of every band, with their definitions."""

EXPLANATION = (
    "First → last evaluation, always on the same images, the first of the training split: no "
    "measure of generalisation. Explained variance: fraction of the weighted variance within the "
    "mask units that is predicted. 0 % is the prediction of one mean for all bands of a unit; a "
    "mean for each band reaches 3 to 7 %; speckle keeps the maximum well below 100 %. The darkest "
    "tenth of the pixels is far from the mean and holds more than a tenth of the loss under any "
    "weighting."
)


def weighting_section(run: History) -> Section | None:
    """Return the diagnostics by band; None for a run that is no pretraining and logged none."""
    metrics, title = run.metrics, "Loss weights and reconstruction"
    logged = {stem(name) for name in metrics}
    if not logged & {*DIAGNOSTICS, *CURVES}:
        return (
            make_section(title, note("No diagnostics were logged.")) if run.is_pretraining else None
        )
    png = draw_small_multiples(metrics, CURVES, run.resumed)
    bands = sorted({name.partition("/")[2] for name in metrics if stem(name) in DIAGNOSTICS})
    rows = [
        (name, *(_first_to_last(metrics, name, band) for band in bands), definition)
        for name, definition in DIAGNOSTICS.items()
        if name in logged
    ]
    head = ("", *(band or "all bands" for band in bands), "")
    return make_section(
        title,
        *map(notice, _nearly_constant(run)),
        make_figure(png, "Diagnostics over the steps"),
        note(missing_curves(metrics, CURVES)),
        make_table(head, rows, range(1, len(bands) + 1)),
        note(EXPLANATION),
    )


def _nearly_constant(run: History) -> list[str]:
    """Return a warning if the weights hardly vary although the weighting is not "none"."""
    weighting = run.config.get("weighting")
    if isinstance(weighting, dict) and weighting.get("name") == "none":
        return []
    last = {
        name.partition("/")[2] or "all bands": finite(series).values[-1:]
        for name, series in run.metrics.items()
        if stem(name) == "weight_cv"
    }
    warning = constant_weights_warning({band: cv[0] for band, cv in last.items() if len(cv)})
    return [warning] if warning else []


def _first_to_last(metrics: Mapping[str, Series], name: str, band: str) -> str:
    """Return the first and the last value of a diagnostic in a band."""
    series = metrics.get(f"{name}/{band}" if band else name)
    values = finite(series).values if series is not None else np.array([])
    if not len(values):
        return "–"
    share = name.endswith("_share")
    ends = [f"{100 * value:.1f} %" if share else f"{value:.3f}" for value in values[[0, -1]]]
    return " → ".join(dict.fromkeys(ends))
