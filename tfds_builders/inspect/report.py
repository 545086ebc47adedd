"""What is found out about a dataset, before it is written down."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.tables import Lines, escape_markdown, format_bytes, markdown_table
from tfds_builders.inspect import backscatter as backscatter
from tfds_builders.inspect import figures
from tfds_builders.inspect.dataset import Dataset, read, spread
from tfds_builders.inspect.findings import Findings
from tfds_builders.inspect.geolocation import Places, distances, locate
from tfds_builders.inspect.loss_weights import Row, weight_table
from tfds_builders.inspect.survey import Survey, percentiles

NEARER = (1, 25, 50, 75, 99)
"""Percentiles of the distance to the nearest patch of `train`."""


def labels_section(found: Findings) -> Lines:
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
        *markdown_table(("", "label", *counts), [*rows, ("", "*no label*", *bare)], text=2),
        "",
        f"![Labels]({found.pictures['labels']})",
    ]


def places_section(found: Findings) -> Lines:
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
            *markdown_table(head, rows),
            "",
        ]
    return [*lines, f"![Map]({found.pictures['map']})", *_countries(found)]


def _countries(found: Findings) -> Lines:
    if "country" not in found.dataset.features:
        return ["", "The records do not name countries."]
    counts = {split: survey.countries for split, survey in found.surveys.items()}
    every = sum(counts.values(), Counter())
    rows = [
        (escape_markdown(name) or "*unknown*", *(f"{one[name]:,}" for one in counts.values()))
        for name, _ in every.most_common()
    ]
    return ["", *markdown_table(("country", *counts), rows)]


def times_section(found: Findings) -> Lines:
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
        *markdown_table(("", *names, "year"), rows),
    ]


def write_markdown(found: Findings) -> str:
    """The whole report."""
    sections = (
        _head,
        _splits,
        backscatter.statistics,
        backscatter.distribution,
        backscatter.agreement,
        backscatter.weights,
        labels_section,
        places_section,
        times_section,
        _sheet_section,
    )
    return "\n".join(line for section in sections for line in [*section(found), ""])


def _head(found: Findings) -> Lines:
    dataset, metadata = found.dataset, found.dataset.metadata
    lines = [f"# {dataset.name}", ""]
    for caveat in dataset.caveats:
        lines += [f"> **Caveat: {caveat}**", ""]
    if not found.whole:
        read = sum(survey.records for survey in found.surveys.values())
        lines += [f"> **A sample: {read:,} patches were read, not all.**", ""]
    image = dataset.features["backscatter"]
    left = metadata.get("left_out")
    options = metadata.get("options") or {}
    facts = {
        "bands": ", ".join(dataset.bands),
        "unit": metadata["unit"],
        "quantity": metadata.get("quantity") or "not stated (sigma0 or gamma0)",
        "patch": f"{'x'.join(map(str, image.shape[:2]))} px, {np.dtype(image.np_dtype)}",
        "nodata": metadata.get("nodata", "not stated"),
        "further features": ", ".join(sorted(set(dataset.features) - {"id", "backscatter"}))
        or "none",
        "options": ", ".join(f"{name}={value}" for name, value in options.items()) or "none",
        "left out by the build": f"{left['patches']:,} patches, {left['bad_files']:,} bad files"
        if left
        else "the build did not say",
        "checksum": f"`{metadata['checksum']}`" if "checksum" in metadata else "none was made",
    }
    return lines + markdown_table(("", ""), facts.items(), text=2)


def _splits(found: Findings) -> Lines:
    dataset = found.dataset
    rows = [
        (
            split,
            f"{dataset.records[split]:,}",
            format_bytes(dataset.sizes[split]),
            f"{found.surveys[split].records:,}" if split in found.surveys else "-",
        )
        for split in dataset.records
    ]
    lines = ["## Splits", "", *markdown_table(("split", "patches", "size", "read here"), rows), ""]
    ids = [np.unique(survey.ids) for survey in found.surveys.values()]
    repeated = sum(len(survey.ids) for survey in found.surveys.values()) - sum(map(len, ids))
    shared = sum(map(len, ids)) - len(np.unique(np.concatenate(ids)))
    if repeated or shared:
        lines.append(
            f"**{repeated:,} ids occur again in their own split, {shared:,} in another split.**"
        )
    else:
        lines.append("Every id that was read occurs once.")
    return lines


def _sheet_section(found: Findings) -> Lines:
    return [
        "## Patches",
        "",
        f"![Contact sheet]({found.pictures['contact_sheet']})",
        "",
        "Patches spread evenly over the splits; the grey scale of a band runs from the 1st to the "
        "99th percentile of what was read.",
    ]


TRAIN = "train"
WEIGHED, SHOWN = 256, 24
"""Patches on which weightings are tried, and that are drawn."""


def write_inspection(
    dataset: Dataset, surveys: Mapping[str, Survey], out: Path, *, whole: bool
) -> list[Path]:
    """Writes pictures and report.

    Args:
      dataset: which.
      surveys: of its splits.
      out: folder to write into.
      whole: whether every record of the splits was read.

    Returns:
      The paths of the files, the report first.

    Raises:
      InputError: a record cannot be read, or a file cannot be written.
    """
    mean, std = dataset.statistics["mean"], dataset.statistics["std"]
    places = {}
    if "transform" in dataset.features:
        places = {name: locate(one.centres, one.unplaced) for name, one in surveys.items()}
    pictures = {
        "histograms": figures.histograms(surveys, dataset.bands, mean, std, dataset.title),
        "contact_sheet": _draw_sheet(dataset, surveys),
    }
    if dataset.classes:
        pictures["labels"] = figures.draw_labels(surveys, dataset.classes, dataset.title)
    if any(len(one.degrees) for one in places.values()):
        pictures["map"] = figures.draw_places(places, dataset.title)
    weights, sample = _measure_weights(dataset, list(surveys), mean, std)
    text = write_markdown(
        Findings(
            dataset=dataset,
            surveys=surveys,
            whole=whole,
            mean=mean,
            std=std,
            weights=weights,
            sample=sample,
            places=places,
            nearest=_nearest(places),
            pictures={name: f"{name}.png" for name in pictures},
        )
    )
    contents = {"report.md": text.encode()}
    contents |= {f"{name}.png": picture for name, picture in pictures.items()}
    try:
        for file, content in contents.items():
            atomic_write(out / file, content)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({first_line(error)}): choose another folder"
        ) from error
    return [out / file for file in contents]


def _measure_weights(
    dataset: Dataset, splits: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> tuple[list[Row], str]:
    """The table of weightings, and on what it was made."""
    split = TRAIN if TRAIN in splits else splits[0]
    indices = spread(dataset.records[split], WEIGHED)
    patches = (
        record["backscatter"]
        for batch in read(dataset, split, indices, ("backscatter",))
        for record in batch
    )
    sample = f"{len(indices)} patches spread over the split {split}"
    return weight_table(patches, mean, std), sample


def _draw_sheet(dataset: Dataset, surveys: Mapping[str, Survey]) -> bytes:
    """Patches spread over the splits, as many of each as of the others."""
    shown = []
    for split in surveys:
        indices = spread(dataset.records[split], -(-SHOWN // len(surveys)))
        for batch in read(dataset, split, indices, ("id", "backscatter")):
            for record in batch:
                caption = f"{record['id'].decode()} ({split})"
                shown.append(figures.Shown(caption, record["backscatter"]))
    scales = [_scale(surveys, band) for band in range(len(dataset.bands))]
    return figures.contact_sheet(shown, dataset.bands, scales, dataset.title)


def _scale(surveys: Mapping[str, Survey], band: int) -> tuple[float, float]:
    """From the lowest 1st to the highest 99th percentile of any split, dB."""
    ends = np.array([percentiles(one, band, (1, 99)) for one in surveys.values()])
    if not np.isfinite(ends).any():
        return 0.0, 1.0
    return float(np.nanmin(ends)), float(np.nanmax(ends)) + 1e-3


def _nearest(places: Mapping[str, Places]) -> dict[str, np.ndarray]:
    """Distance from the patches of other splits to the nearest of `train`, km."""
    if TRAIN not in places or not len(places[TRAIN].degrees):
        return {}
    return {
        split: distances(one, places[TRAIN])
        for split, one in places.items()
        if split != TRAIN and len(one.degrees)
    }
