"""The sections of the report about backscatter: statistics, distribution, loss weights."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sar_mixmae_jax.objectives.diagnostics import NEARLY_CONSTANT
from sar_mixmae_jax.utils.tables import Lines, format_fraction, format_numbers, markdown_table
from tfds_builders.inspect.findings import Findings
from tfds_builders.inspect.survey import BINS_PER_DB, HIGH, LOW
from tfds_builders.inspect.survey import percentiles as read_percentiles

PERCENTILES = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)
AGREES = 1e-6
"""dB (or share of nodata) up to which two ways to add up the same numbers may differ."""


def statistics(found: Findings) -> Lines:
    """What was measured beside what training uses."""
    rows, standardised = [], []
    for split, survey in found.surveys.items():
        moments = survey.moments
        deviations, patches = moments.global_std(), moments.mean_patch_std()
        for band, name in enumerate(found.dataset.bands):
            mean, std = found.mean[band], found.std[band]
            values = (moments.mean()[band], deviations[band], patches[band], mean, std)
            rows.append((split, name, *(f"{value:.4f}" for value in values)))
            centre, spread = (moments.mean()[band] - mean) / std, deviations[band] / std
            standardised.append(f"{split} {name} {centre:+.2f} ± {spread:.2f}")
    head = ("split", "band", "global mean", "global deviation", "mean of per-patch deviations")
    lines = [
        "## Statistics",
        "",
        "In dB, over valid pixels. The *global deviation* is over all pixels of all patches; the "
        "*mean of per-patch deviations* leaves out how patches differ from each other. "
        "*Training uses* what is in the metadata.",
        "",
        *markdown_table((*head, "training uses: mean", "training uses: deviation"), rows, text=2),
        "",
        f"What training uses was computed on: {found.dataset.statistics['of']}.",
        "",
    ]
    if np.isfinite([found.mean, found.std]).all():
        lines.append(
            "Standardised with it, all pixels have the mean ± deviation: "
            f"{'; '.join(standardised)}. (0 ± 1 where the statistics are the data's own.)"
        )
    else:
        lines.append("**Training cannot use this dataset** before `--write_statistics`.")
    return lines + _former(found.dataset.metadata.get("statistics_before"))


def _former(before: Mapping[str, Any] | None) -> Lines:
    if not before or not {"mean", "std", "of"} <= before.keys():
        return []
    return [
        "",
        f"These replaced, at the wish of the user: mean {format_numbers(before['mean'])}, "
        "deviation "
        f"{format_numbers(before['std'])} ({before['of']}).",
    ]


def distribution(found: Findings) -> Lines:
    """Percentiles and the histograms."""
    rows = []
    for split, survey in found.surveys.items():
        for band, name in enumerate(found.dataset.bands):
            below, above = survey.outside[band]
            values = (
                survey.lowest[band],
                *read_percentiles(survey, band, PERCENTILES),
                survey.highest[band],
            )
            nodata = format_fraction(survey.moments.nodata_fraction()[band])
            figures = (f"{value:.2f}" if math.isfinite(value) else "-" for value in values)
            rows.append((split, name, nodata, *figures, f"{below:,}", f"{above:,}"))
    head = (f"{value:g} %" for value in PERCENTILES)
    return [
        "## Distribution",
        "",
        f"In dB. Percentiles are read from a histogram with bins of {1 / BINS_PER_DB:g} dB from "
        f"{LOW:g} to {HIGH:g} dB; *below* and *above* are pixels outside of it.",
        "",
        *markdown_table(
            ("split", "band", "nodata", "min", *head, "max", "below", "above"), rows, text=2
        ),
        "",
        f"![Histograms]({found.pictures['histograms']})",
    ]


def agreement(found: Findings) -> Lines:
    """Whether the sums made during the build say the same: a check of both."""
    measured = found.dataset.metadata.get("measured")
    lines = ["## Agreement with the build", ""]
    if not measured:
        return [*lines, "The build left no sums to compare with."]
    if not found.whole:
        return [*lines, "Not compared: the build's sums are of all patches."]
    rows = []
    for split, survey in found.surveys.items():
        here, there = survey.moments.describe(), measured.get(split)
        if there is None:
            rows.append((split, "the build did not measure it", "", ""))
            continue
        differences = [
            abs(a - b)
            for name in ("mean", "global_deviation", "mean_patch_deviation", "nodata_share")
            for a, b in zip(here[name], there[name], strict=True)
            if not (math.isnan(a) and math.isnan(b))
        ]
        worst = max(differences, default=0.0)
        same = worst <= AGREES and here["patches"] == there["patches"]  # False for NaN
        verdict = "agrees" if same else "**differs: build the dataset again**"
        rows.append((split, verdict, f"{worst:.1e}", f"{here['patches']:,}, {there['patches']:,}"))
    head = ("split", "sums made here and during the build", "largest difference", "patches")
    return [*lines, *markdown_table(head, rows, text=2)]


def weights(found: Findings) -> Lines:
    """What the weightings of the loss do."""
    bands = found.dataset.bands
    measures = ("CV", "dark / bright", "flat patches")
    rows = [
        (
            f"`{row.name}`",
            row.domain,
            *(f"{value:.3f}" for value in row.cv),
            *(f"{value:.2f}" for value in row.dark_bright),
            *(format_fraction(value) for value in row.flat),
        )
        for row in found.weights
    ]
    head = [f"{measure}, {band}" for measure in measures for band in bands]
    lines = [
        "## Loss weights",
        "",
        f"On {found.sample}, fitted as `configs/pretrain.py` does, before any training. *CV*: "
        "median over patches of the coefficient of variation of the weights; *dark / bright*: "
        "median ratio of the mean weight in the darkest decile of the pixels to the brightest; "
        f"*flat patches*: share with a CV below {NEARLY_CONSTANT:g}, where a weighting trains like "
        "`none`.",
        "",
        *markdown_table(("weighting", "domain", *head), rows, text=2),
    ]
    if not any(row.domain == "standardised" for row in found.weights):
        lines += ["", "The standardised domain is left out: the statistics cannot be used."]
    return lines
