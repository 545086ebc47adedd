"""The sections of the report about what the patches show: labels, where and when."""

from collections import Counter

import numpy as np

from tfds_builders.inspect.findings import Findings
from tfds_builders.inspect.markdown import Lines, escaped, table

NEARER = (1, 25, 50, 75, 99)
"""Percentiles of the distance to the nearest patch of `train`."""


def labels(found: Findings) -> Lines:
    """How many patches have each label."""
    classes = found.dataset.classes
    if not classes:
        return ["## Labels", "", "The records have no labels."]
    counts = {split: np.diagonal(one.together) for split, one in found.surveys.items()}
    rows = [
        (number + 1, name, *(f"{values[number]:,}" for values in counts.values()))
        for number, name in enumerate(classes)
    ]
    bare = (f"{survey.unlabelled:,}" for survey in found.surveys.values())
    return [
        "## Labels",
        "",
        "Patches that have a label; a patch may have several.",
        "",
        *table(("", "label", *counts), [*rows, ("", "*no label*", *bare)], text=2),
        "",
        f"![Labels]({found.pictures['labels']})",
    ]


def places(found: Findings) -> Lines:
    """Where the patches lie, and how far the splits are apart."""
    lines = ["## Places", ""]
    if "transform" not in found.dataset.features:
        return [*lines, "The records do not say where they lie."]
    unknown = sum(one.unknown for one in found.places.values())
    total = sum(survey.records for survey in found.surveys.values())
    lines += [f"{unknown:,} of {total:,} patches have no place that is known.", ""]
    if "map" not in found.pictures:
        return lines[:-1]
    if found.nearest:
        rows = [
            (split, *(f"{value:,.2f}" for value in np.percentile(km, NEARER)))
            for split, km in found.nearest.items()
        ]
        head = ("split", *(f"{value} %" for value in NEARER))
        lines += [
            "Distance in km to the nearest patch of `train`, centre to centre, that so many of the "
            "patches of a split do not exceed. Where it is about the side of a patch, the "
            "split is no independent test.",
            "",
            *table(head, rows),
            "",
        ]
    return [*lines, f"![Map]({found.pictures['map']})", *_countries(found)]


def _countries(found: Findings) -> Lines:
    if "country" not in found.dataset.features:
        return ["", "The records do not name countries."]
    counts = {split: survey.countries for split, survey in found.surveys.items()}
    every = sum(counts.values(), Counter())
    rows = [
        (escaped(name) or "*unknown*", *(f"{one[name]:,}" for one in counts.values()))
        for name, _ in every.most_common()
    ]
    return ["", *table(("country", *counts), rows)]


def times(found: Findings) -> Lines:
    """When the patches were acquired."""
    lines = ["## Times of acquisition", ""]
    if "time" not in found.dataset.features:
        return [*lines, "The records do not say when they were acquired."]
    months: Counter[str] = sum((one.months for one in found.surveys.values()), Counter())
    unknown = months.pop("", 0)
    if not months:
        return [*lines, "No patch that was read says when it was acquired."]
    first = min(one.first for one in found.surveys.values() if one.first)
    last = max(one.last for one in found.surveys.values())
    years = sorted({month[:4] for month in months})
    rows = []
    for year in years:
        counts = [months[f"{year}-{month:02d}"] for month in range(1, 13)]
        rows.append(
            (year, *(f"{count:,}" if count else "" for count in counts), f"{sum(counts):,}")
        )
    names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return [
        *lines,
        f"From {first} to {last} UTC; unknown for {unknown:,} patches. Patches of all splits read:",
        "",
        *table(("", *names, "year"), rows),
    ]
