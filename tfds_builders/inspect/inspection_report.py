"""Report on a dataset: Markdown sections about records, labels, places and times; the files."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write, format_bytes
from sar_mixmae_jax.utils.tables import Lines, escape_markdown, markdown_table
from tfds_builders.inspect import backscatter_sections, figures
from tfds_builders.inspect.dataset import Dataset, read, stratified_rows
from tfds_builders.inspect.figures import LabelledPatch
from tfds_builders.inspect.inspection import Inspection
from tfds_builders.inspect.survey import Survey, map_degrees, percentiles

SHOWN_PATCHES = 24
"""Patches of the contact sheet."""

DISTANCE_PERCENTILES = (1, 25, 50, 75, 99)
"""Percentiles of the distance to the nearest patch of `train`."""

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def write_inspection(inspection: Inspection, out: Path) -> list[Path]:
    """Write the figures and the report.

    Args:
      inspection: the measurements.
      out: folder to write into.

    Returns:
      Paths of the files, the report first.

    Raises:
      InputError: a record cannot be read, or a file cannot be written.
    """
    dataset, surveys = inspection.dataset, inspection.surveys
    pictures = {
        "histograms": figures.draw_histograms(
            surveys, dataset.bands, inspection.mean, inspection.std, dataset.title
        ),
        "contact_sheet": _draw_contact_sheet(dataset, surveys),
    }
    if dataset.classes:
        pictures["labels"] = figures.draw_labels(surveys, dataset.classes, dataset.title)
    if inspection.has_map:
        pictures["map"] = figures.draw_places(inspection.places, dataset.title)
    contents = {"report.md": write_markdown(inspection).encode()}
    contents |= {f"{name}.png": picture for name, picture in pictures.items()}
    try:
        for name, content in contents.items():
            atomic_write(out / name, content)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({first_line(error)}): choose another folder"
        ) from error
    return [out / name for name in contents]


def _draw_contact_sheet(dataset: Dataset, surveys: Mapping[str, Survey]) -> bytes:
    """Draw equally many patches of each split, spread over the split."""
    patches = []
    for split in surveys:
        indices = stratified_rows(dataset.records[split], -(-SHOWN_PATCHES // len(surveys)))
        for batch in read(dataset, split, indices, ("id", "backscatter")):
            for record in batch:
                caption = f"{record['id'].decode()} ({split})"
                patches.append(LabelledPatch(caption, record["backscatter"]))
    scales = [_grey_scale(surveys, band) for band in range(len(dataset.bands))]
    return figures.draw_contact_sheet(patches, dataset.bands, scales, dataset.title)


def _grey_scale(surveys: Mapping[str, Survey], band: int) -> tuple[float, float]:
    """Return the lowest 1st and the highest 99th percentile of all splits, dB."""
    ends = np.array([percentiles(survey, band, (1, 99)) for survey in surveys.values()])
    if not np.isfinite(ends).any():
        return 0.0, 1.0
    return float(np.nanmin(ends)), float(np.nanmax(ends)) + 1e-3


def write_markdown(inspection: Inspection) -> str:
    """Return the report as Markdown."""
    sections = (
        _header,
        _splits,
        backscatter_sections.statistics,
        backscatter_sections.distribution,
        backscatter_sections.agreement,
        backscatter_sections.loss_weights,
        _labels,
        _places,
        _times,
        _contact_sheet,
    )
    return "\n".join(line for section in sections for line in [*section(inspection), ""])


def _header(inspection: Inspection) -> Lines:
    dataset, metadata = inspection.dataset, inspection.dataset.metadata
    lines = [f"# {dataset.name}", ""]
    for caveat in dataset.caveats:
        lines += [f"> **Caveat: {caveat}**", ""]
    for note in metadata.notes:
        if note.startswith("warning: "):
            lines += [f"> **{escape_markdown(note)}**", ""]
    if not inspection.complete:
        records = sum(survey.records for survey in inspection.surveys.values())
        lines += [f"> **A sample: {records:,} patches were read, not all.**", ""]
    image = dataset.features["backscatter"]
    left_out = metadata.facts.get("left_out")
    options = metadata.options or {}
    zeros = metadata.facts.get("zero_pixels") or {}
    facts = {
        "bands": ", ".join(dataset.bands),
        "unit": metadata.unit,
        "quantity": metadata.facts.get("quantity") or "not stated (sigma0 or gamma0)",
        "patch": f"{'x'.join(map(str, image.shape[:2]))} px, {np.dtype(image.np_dtype)}",
        "nodata": metadata.nodata or "not stated",
        "further features": ", ".join(sorted(set(dataset.features) - {"id", "backscatter"}))
        or "none",
        "options": ", ".join(f"{name}={value}" for name, value in options.items()) or "none",
        "left out by the build": f"{left_out['patches']:,} patches, "
        f"{left_out['bad_files']:,} bad files"
        if left_out
        else "not recorded by the build",
        "zeros read as nodata": ", ".join(f"{name} {count:,}" for name, count in zeros.items())
        or "not recorded by the build",
        "checksum": f"`{metadata.checksum}`" if metadata.checksum else "none",
    }
    return lines + markdown_table(("", ""), facts.items(), text=2)


def _splits(inspection: Inspection) -> Lines:
    dataset, surveys = inspection.dataset, inspection.surveys
    rows = [
        (
            split,
            f"{records:,}",
            format_bytes(dataset.sizes[split]),
            f"{surveys[split].records:,}" if split in surveys else "-",
        )
        for split, records in dataset.records.items()
    ]
    lines = ["## Splits", "", *markdown_table(("split", "patches", "size", "read here"), rows), ""]
    ids = [np.unique(survey.ids) for survey in surveys.values()]
    repeated = sum(len(survey.ids) for survey in surveys.values()) - sum(map(len, ids))
    shared = sum(map(len, ids)) - len(np.unique(np.concatenate(ids)))
    if repeated or shared:
        lines.append(
            f"**{repeated:,} ids occur again in their own split, {shared:,} in another split.**"
        )
    else:
        lines.append("Every id that was read occurs once.")
    return lines


def _labels(inspection: Inspection) -> Lines:
    classes = inspection.dataset.classes
    if inspection.dataset.metadata.pairs is not None:
        return _pairs(inspection.dataset.metadata.pairs)
    if not classes:
        return ["## Labels", "", "The records have no labels."]
    counts = {
        split: np.diagonal(survey.cooccurrence) for split, survey in inspection.surveys.items()
    }
    rows = [
        (number + 1, name, *(f"{values[number]:,}" for values in counts.values()))
        for number, name in enumerate(classes)
    ]
    unlabelled = (f"{survey.unlabelled:,}" for survey in inspection.surveys.values())
    return [
        "## Labels",
        "",
        "Patches that have a label; a patch may have several.",
        "",
        *markdown_table(("", "label", *counts), [*rows, ("", "*no label*", *unlabelled)], text=2),
        "",
        "![Labels](labels.png)",
    ]


def _pairs(pairs: Mapping[str, Mapping[str, Any]]) -> Lines:
    """Return a table of the pairs of dates of every split."""
    counted = {
        "onset": ("of the first flood", lambda values: int(np.sum(values))),
        "seen_alike": ("from other orbits", lambda values: len(values) - int(np.sum(values))),
        "sequence": ("sequences", lambda values: len(set(values))),
        "group": ("groups", lambda values: len(set(values))),
    }
    present = {
        name: count
        for name, count in counted.items()
        if all(name in columns for columns in pairs.values())
    }
    rows = [
        (
            split,
            f"{len(columns['before']):,}",
            f"{int(np.sum(columns['flooded'])):,}",
            f"{len({*columns['before'], *columns['after']}):,}",
            f"{len({*columns['after']}):,}",
            *(f"{count(columns[name]):,}" for name, (_, count) in present.items()),
        )
        for split, columns in pairs.items()
    ]
    titles = [title for title, _ in present.values()]
    head = ("split", "pairs", "flooded", "images", "second images", *titles)
    return [
        "## Pairs",
        "",
        "Pairs of dates; an image may be in several. The label is that of the second image.",
        "",
        *markdown_table(head, rows),
    ]


def _places(inspection: Inspection) -> Lines:
    lines = ["## Places", ""]
    if "transform" not in inspection.dataset.features:
        return [*lines, "The records have no coordinates."]
    unknown = sum(places.unknown for places in inspection.places.values())
    total = sum(survey.records for survey in inspection.surveys.values())
    lines.append(f"{total - unknown:,} of {total:,} patches have a known place.")
    if not inspection.has_map:
        return lines
    degrees = np.concatenate(list(map_degrees(inspection.places).values()))
    (west, south), (east, north) = degrees.min(0), degrees.max(0)
    lines.append(
        f"Centres from {west:.3f} to {east:.3f}° east"
        + (" (beyond 180°: west)" if east > 180 else "")
        + (" (beyond -180°: east)" if west < -180 else "")
        + f", {south:.3f} to {north:.3f}° north."
    )
    if inspection.nearest:
        rows = [
            (split, *(f"{value:,.2f}" for value in np.percentile(km, DISTANCE_PERCENTILES)))
            for split, km in inspection.nearest.items()
        ]
        head = ("split", *(f"{value} %" for value in DISTANCE_PERCENTILES))
        lines += [
            "",
            "Percentiles over the patches of a split of the distance in km to the nearest patch of "
            "`train`, centre to centre. Where it is about the side of a patch, the split is no "
            "independent test.",
            "",
            *markdown_table(head, rows),
        ]
    return [*lines, "", "![Map](map.png)", "", *_countries(inspection)]


def _countries(inspection: Inspection) -> Lines:
    if "country" not in inspection.dataset.features:
        return ["The records do not name countries."]
    counts = {split: survey.countries for split, survey in inspection.surveys.items()}
    rows = [
        (escape_markdown(name) or "*unknown*", *(f"{count[name]:,}" for count in counts.values()))
        for name, _ in sum(counts.values(), Counter()).most_common()
    ]
    return markdown_table(("country", *counts), rows)


def _times(inspection: Inspection) -> Lines:
    lines = ["## Times of acquisition", ""]
    if "time" not in inspection.dataset.features:
        return [*lines, "The records have no times of acquisition."]
    surveys = inspection.surveys.values()
    months: Counter[str] = sum((survey.months for survey in surveys), Counter())
    unknown = months.pop("", 0)
    if not months:
        return [*lines, "The time of acquisition of every patch is unknown."]
    first = min(survey.first for survey in surveys if survey.first)
    last = max(survey.last for survey in surveys)
    rows = []
    for year in sorted({month[:4] for month in months}):
        counts = [months[f"{year}-{month:02d}"] for month in range(1, 13)]
        cells = [f"{count:,}" if count else "" for count in counts]
        rows.append((year, *cells, f"{sum(counts):,}"))
    return [
        *lines,
        f"From {first} to {last} UTC; unknown for {unknown:,} patches. Patches of all splits read:",
        "",
        *markdown_table(("", *MONTHS, "year"), rows),
    ]


def _contact_sheet(inspection: Inspection) -> Lines:
    del inspection
    return [
        "## Patches",
        "",
        "![Contact sheet](contact_sheet.png)",
        "",
        "Patches spread evenly over the splits; the grey scale of a band runs from the 1st to the "
        "99th percentile of the measured values.",
    ]
