"""The sections of the page about the loss weights, and about metrics that it does not know."""

from collections.abc import Mapping

import numpy as np

from sar_mixmae_jax.objectives.diagnostics import NEARLY_CONSTANT
from sar_mixmae_jax.run_report import formatting, html, plots
from sar_mixmae_jax.run_report.history import History, Series, finite, resumed
from sar_mixmae_jax.run_report.html import Markup, note, notice, section, table
from sar_mixmae_jax.run_report.plots import stem
from sar_mixmae_jax.run_report.sections import left_out

SEEN = ("explained_variance", "loss_dark_share", "bias_db")
"""Diagnostics that change while the model learns, for curves."""

WEIGHTS = {
    "weight_cv": f"deviation over mean, median of the patches; below {NEARLY_CONSTANT:g} AdamW all "
    "but cancels the weights",
    "weight_flat_share": f"share of the patches for which that is below {NEARLY_CONSTANT:g}",
    "weight_dark_bright": "mean weight of the darkest over that of the brightest tenth of the "
    "pixels, median",
    "weight_p05": "5th percentile of the weights of all valid pixels",
    "weight_p95": "95th percentile of the same",
    "loss_dark_share": "share of the weighted loss that falls on the darkest tenth of the pixels",
    "bias_db": "mean of reconstruction minus measurement in dB; 0 is unbiased",
}
"""What the diagnostics of every band mean."""

GROUPED = {
    *("loss", "gradient_norm", "learning_rate", "epoch"),
    *("images_per_second", "seconds", "checkpoint_seconds", "checkpoint_blocked_seconds"),
    *("explained_variance", "validation", *WEIGHTS),
}
"""Metrics that have a place of their own on the page."""

MOST_PANELS = 24
"""Of metrics that are not known."""


def weights(run: History) -> Markup:
    """What the weighting does, and what the model makes of it; nothing for a run without one."""
    metrics, heading = run.metrics, "Loss weights and reconstruction"
    if not any(stem(name) in {*WEIGHTS, *SEEN} for name in metrics):
        weighted = "weighting" in run.config
        return section(heading, note("No diagnostics were logged.")) if weighted else Markup()
    png = plots.draw_small_multiples(metrics, SEEN, resumed(run.starts))
    bands = sorted({name.partition("/")[2] for name in metrics if stem(name) in WEIGHTS})
    named = {stem(name) for name in metrics}
    rows = [
        (name, *(_first_to_last(metrics, name, band) for band in bands), meaning)
        for name, meaning in WEIGHTS.items()
        if name in named
    ]
    return section(
        heading,
        *map(notice, _nearly_constant(run)),
        html.picture(png, "Diagnostics of the same patches over the steps") if png else "",
        note(left_out(metrics, SEEN)),
        table(("", *(band or "all bands" for band in bands), ""), rows, range(1, len(bands) + 1)),
        note(
            "First → last look at the same patches, the first of the data trained on: no measure "
            "of generalisation. Explained: share of the weighted variance inside the cells that is "
            "predicted; 0 is no better than one mean for all bands of a cell, a mean for each "
            "band reaches 3 to 7 %, and speckle keeps it well below 100 %. The darkest tenth "
            "is far from the mean, so it holds more than a tenth of the loss under any weighting."
        ),
    )


def _nearly_constant(run: History) -> list[str]:
    """A warning where the weighting hardly differs from none, and was not meant to."""
    weighting = run.config.get("weighting")
    if isinstance(weighting, dict) and weighting.get("name") == "none":
        return []
    last = {
        name.partition("/")[2] or "all bands": finite(series).values[-1:]
        for name, series in run.metrics.items()
        if stem(name) == "weight_cv"
    }
    flat = [f"{cv[0]:.3f} in {band}" for band, cv in last.items() if (cv < NEARLY_CONSTANT).any()]
    if not flat:
        return []
    return [
        f"The loss weights are nearly constant: their coefficient of variation is "
        f"{', '.join(flat)}, below {NEARLY_CONSTANT:g}, which trains like weighting=none."
    ]


def _first_to_last(metrics: Mapping[str, Series], name: str, band: str) -> str:
    """The first and the last value of a diagnostic in a band."""
    series = metrics.get(f"{name}/{band}" if band else name)
    values = finite(series).values if series is not None else np.array([])
    if not len(values):
        return "–"
    share = name.endswith("_share")
    ends = [f"{100 * value:.1f} %" if share else f"{value:.3f}" for value in values[[0, -1]]]
    return " → ".join(dict.fromkeys(ends))


def others(run: History) -> Markup:
    """Metrics of which only the name is known."""
    metrics = {name: series for name, series in run.metrics.items() if stem(name) not in GROUPED}
    if not metrics:
        return Markup()
    stems = tuple(dict.fromkeys(map(stem, metrics)))
    shown = stems[:MOST_PANELS]
    png = plots.draw_small_multiples(metrics, shown, resumed(run.starts))
    head = ("", "last", "at step", "lowest", "at step", "highest", "at step")
    return section(
        "Other metrics",
        html.picture(png, "Other metrics over the steps") if png else "",
        note(left_out(metrics, shown)),
        note(f"Curves of the first {MOST_PANELS} of {len(stems)}." if shown != stems else ""),
        table(head, [(name, *_range(series)) for name, series in metrics.items()], range(1, 7)),
    )


def _range(series: Series) -> list[str]:
    """Last, lowest and highest value, each with its step."""
    steps, values = finite(series)
    if not len(values):
        return ["not finite", *[""] * 5]
    places = (len(values) - 1, values.argmin(), values.argmax())
    return [
        told
        for at in places
        for told in (formatting.number(values[at]), formatting.step(steps[at]))
    ]
