"""The report on a dataset as Markdown: readable by itself, with the pictures beside it."""

import numpy as np

from tfds_builders.inspect import report_backscatter as backscatter
from tfds_builders.inspect import report_context as context
from tfds_builders.inspect.findings import Findings
from tfds_builders.inspect.markdown import Lines, size, table


def write(found: Findings) -> str:
    """The whole report."""
    sections = (
        _head,
        _splits,
        backscatter.statistics,
        backscatter.distribution,
        backscatter.agreement,
        backscatter.weights,
        context.labels,
        context.places,
        context.times,
        _sheet,
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
    return lines + table(("", ""), facts.items(), text=2)


def _splits(found: Findings) -> Lines:
    dataset = found.dataset
    rows = [
        (
            split,
            f"{dataset.records[split]:,}",
            size(dataset.sizes[split]),
            f"{found.surveys[split].records:,}" if split in found.surveys else "-",
        )
        for split in dataset.records
    ]
    lines = ["## Splits", "", *table(("split", "patches", "size", "read here"), rows), ""]
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


def _sheet(found: Findings) -> Lines:
    return [
        "## Patches",
        "",
        f"![Contact sheet]({found.pictures['contact_sheet']})",
        "",
        "Patches spread evenly over the splits; the grey scale of a band runs from the 1st to the "
        "99th percentile of what was read.",
    ]
