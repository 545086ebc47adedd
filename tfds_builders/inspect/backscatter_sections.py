"""Sections of the report about backscatter: statistics, distribution, agreement, loss weights."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sar_mixmae_jax.objectives.diagnostics import NEARLY_CONSTANT
from sar_mixmae_jax.utils.tables import Lines, format_fraction, format_numbers, markdown_table
from tfds_builders.inspect.inspection import IMAGE_SIZE, Inspection
from tfds_builders.inspect.survey import BINS_PER_DB, HIGH, LOW, percentiles

PERCENTILES = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)

TOLERANCE = 1e-6
"""Largest difference, in dB or share of nodata, between two orders of the same summation."""


def statistics(inspection: Inspection) -> Lines:
    """Return the measured statistics beside those of the metadata, which training uses."""
    dataset = inspection.dataset
    rows, standardised = [], []
    for split, survey in inspection.surveys.items():
        moments = survey.moments
        means, global_std = moments.mean(), moments.global_std()
        patch_std = moments.mean_patch_std()
        for band, name in enumerate(dataset.bands):
            mean, std = inspection.mean[band], inspection.std[band]
            values = (means[band], global_std[band], patch_std[band], mean, std)
            rows.append((split, name, *(f"{value:.4f}" for value in values)))
            centre, spread = (means[band] - mean) / std, global_std[band] / std
            standardised.append(f"{split} {name} {centre:+.2f} ± {spread:.2f}")
    head = ("split", "band", "global mean", "global std", "mean of per-patch std")
    lines = [
        "## Statistics",
        "",
        "In dB, over valid pixels. The *global std* is over all pixels of all patches; the *mean "
        "of per-patch std* excludes the differences between patches. *Training uses* is the "
        "content of the metadata.",
        "",
        *markdown_table((*head, "training uses: mean", "training uses: std"), rows, text=2),
        "",
        f"Training uses statistics of: {dataset.statistics['of']}.",
        "",
    ]
    if np.isfinite([inspection.mean, inspection.std]).all():
        lines.append(
            "Standardised with these, all pixels have the mean ± std: "
            f"{'; '.join(standardised)}. (0 ± 1 where the statistics are the data's own.)"
        )
    else:
        lines.append("**Training cannot use this dataset** before `--write_statistics`.")
    return lines + _replaced_statistics(dataset.metadata.facts.get("statistics_before"))


def _replaced_statistics(replaced: Mapping[str, Any] | None) -> Lines:
    if not replaced or not {"mean", "std", "of"} <= replaced.keys():
        return []
    return [
        "",
        f"`--write_statistics` replaced: mean {format_numbers(replaced['mean'])}, std "
        f"{format_numbers(replaced['std'])} ({replaced['of']}).",
    ]


def distribution(inspection: Inspection) -> Lines:
    """Return the percentiles of every split and band, and the histograms."""
    rows = []
    for split, survey in inspection.surveys.items():
        for band, name in enumerate(inspection.dataset.bands):
            below, above = survey.outside[band]
            values = (
                survey.lowest[band],
                *percentiles(survey, band, PERCENTILES),
                survey.highest[band],
            )
            nodata = format_fraction(survey.moments.nodata_fraction()[band])
            cells = (f"{value:.2f}" if math.isfinite(value) else "-" for value in values)
            rows.append((split, name, nodata, *cells, f"{below:,}", f"{above:,}"))
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
        "![Histograms](histograms.png)",
    ]


def agreement(inspection: Inspection) -> Lines:
    """Compare the sums with those made during the build."""
    measured = inspection.dataset.metadata.facts.get("measured")
    lines = ["## Agreement with the build", ""]
    if not measured:
        return [*lines, "The metadata have no sums of the build to compare with."]
    if not inspection.complete:
        return [*lines, "Not compared: the build's sums are of all patches."]
    rows = []
    for split, survey in inspection.surveys.items():
        here, build = survey.moments.describe(), measured.get(split)
        if build is None:
            rows.append((split, "not measured by the build", "", ""))
            continue
        differences = [
            abs(a - b)
            for name in ("mean", "global_deviation", "mean_patch_deviation", "nodata_share")
            for a, b in zip(here[name], build[name], strict=True)
            if not (math.isnan(a) and math.isnan(b))
        ]
        worst = max(differences, default=0.0)
        same = worst <= TOLERANCE and here["patches"] == build["patches"]  # False for NaN
        verdict = "agrees" if same else "**differs: build the dataset again**"
        rows.append((split, verdict, f"{worst:.1e}", f"{here['patches']:,}, {build['patches']:,}"))
    head = ("split", "sums made here and during the build", "largest difference", "patches")
    return [*lines, *markdown_table(head, rows, text=2)]


def loss_weights(inspection: Inspection) -> Lines:
    """Return the contrast of the loss weights for every weighting."""
    bands = inspection.dataset.bands
    measures = ("CV", "dark / bright", "flat patches")
    rows = [
        (
            f"`{row.name}`",
            row.domain,
            *(f"{value:.3f}" for value in row.cv),
            *(f"{value:.2f}" for value in row.dark_bright),
            *(format_fraction(value) for value in row.flat),
        )
        for row in inspection.weights
    ]
    head = [f"{measure}, {band}" for measure in measures for band in bands]
    lines = [
        "## Loss weights",
        "",
        f"On {inspection.sample}, resized to {IMAGE_SIZE} px, before any training. *CV*: "
        "median over patches of the coefficient of variation of the weights; *dark / bright*: "
        "median ratio of the mean weight in the darkest decile of the pixels to the brightest; "
        f"*flat patches*: share with a CV below {NEARLY_CONSTANT:g}, where a weighting trains like "
        "`none`.",
        "",
        *markdown_table(("weighting", "domain", *head), rows, text=2),
    ]
    if not any(row.domain == "standardised" for row in inspection.weights):
        lines += ["", "The standardised domain is left out: the statistics cannot be used."]
    return lines
