"""Tables of a comparison: as plain data, as JSON and as Markdown."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sar_mixmae_jax.experiments.seed_statistics import (
    CONFIDENCE,
    BySeed,
    Difference,
    Discrimination,
    Metric,
    Result,
    Spread,
    difference,
    discrimination,
    spread,
    values_by_seed,
)
from sar_mixmae_jax.utils.tables import markdown_table

MISSING = "–"
NOT_DISCRIMINATING = "†"
"""Mark of a difference in a metric in which no arm is resolved above the best baseline."""


@dataclasses.dataclass(frozen=True)
class Section:
    """Content of a table.

    Attributes:
      title: its heading.
      metrics: its columns.
      note: explanation below it.
      judged: True if the baselines decide whether the test discriminates between arms; False for
        references of another kind, such as the error of a constant.
      transposed: True for a row per metric and a column per arm.
    """

    title: str
    metrics: tuple[Metric, ...]
    note: str = ""
    judged: bool = False
    transposed: bool = False


class Row(NamedTuple):
    """An arm or a baseline.

    Attributes:
      name: name of the arm or baseline.
      is_baseline: True for a method without a network.
      spreads: of every metric.
      differences: differences of every metric to the reference; None for baselines, the reference
        itself and metrics that are not compared.
    """

    name: str
    is_baseline: bool
    spreads: tuple[Spread, ...]
    differences: tuple[Difference | None, ...]


class Table(NamedTuple):
    """A section with its values.

    Attributes:
      section: its content.
      reference: arm that the others are compared with.
      rows: arms, then baselines.
      discriminations: of the compared metrics of a judged section.
    """

    section: Section
    reference: str
    rows: tuple[Row, ...]
    discriminations: tuple[Discrimination, ...]


def make_table(
    section: Section,
    results: Sequence[Result],
    baselines: Sequence[Result],
    arms: Sequence[str],
    reference: str = "none",
) -> Table:
    """Return a section with its values; arms without a result have a row too.

    Args:
      section: content of the table.
      results: results of all finished runs.
      baselines: baselines of all tasks; those without a value for any of the metrics have no row.
      arms: in the order of the rows.
      reference: arm that the others are compared with.

    Raises:
      InputError: an arm has two results for a seed.
    """
    of_arms = [values_by_seed(results, metric) for metric in section.metrics]
    of_baselines = [values_by_seed(baselines, metric) for metric in section.metrics]
    rows = [_arm_row(arm, section.metrics, of_arms, reference) for arm in arms]
    for name in dict.fromkeys(name for values in of_baselines for name in values):
        spreads = [spread(values.get(name, {}).values()) for values in of_baselines]
        rows.append(Row(name, True, tuple(spreads), (None,) * len(spreads)))
    discriminations = [
        discrimination(metric, {arm: values.get(arm, {}) for arm in arms}, baseline_values)
        for metric, values, baseline_values in zip(
            section.metrics, of_arms, of_baselines, strict=True
        )
        if section.judged and metric.compared
    ]
    return Table(section, reference, tuple(rows), tuple(filter(None, discriminations)))


def _arm_row(
    arm: str,
    metrics: Sequence[Metric],
    of_arms: Iterable[Mapping[str, BySeed]],
    reference: str,
) -> Row:
    spreads, differences = [], []
    for metric, values in zip(metrics, of_arms, strict=True):
        arm_values = values.get(arm, {})
        spreads.append(spread(arm_values.values()))
        to_reference = difference(arm_values, values.get(reference, {}), metric.higher_is_better)
        differences.append(to_reference if metric.compared and arm != reference else None)
    return Row(arm, False, tuple(spreads), tuple(differences))


# ---- JSON


def to_json(tables: Iterable[Table]) -> dict[str, Any]:
    """Return all numbers of the tables as JSON; missing values are None."""
    return {"confidence": CONFIDENCE, "tables": [_table_json(table) for table in tables]}


def _table_json(table: Table) -> dict[str, Any]:
    metrics = table.section.metrics
    return {
        "title": table.section.title,
        "reference": table.reference,
        "note": table.section.note,
        "metrics": [metric._asdict() for metric in metrics],
        "rows": [
            {
                "name": row.name,
                "baseline": row.is_baseline,
                "values": [
                    {
                        "task": metric.task,
                        "metric": metric.name,
                        **values._asdict(),
                        "difference": to_reference._asdict() if to_reference else None,
                    }
                    for metric, values, to_reference in zip(
                        metrics, row.spreads, row.differences, strict=True
                    )
                ],
            }
            for row in table.rows
        ],
        "discriminates": [
            {
                "task": entry.metric.task,
                "metric": entry.metric.name,
                "best_baseline": entry.baseline,
                "value": entry.value,
                "arms_above": list(entry.above),
                "verdict": entry.verdict,
            }
            for entry in table.discriminations
        ],
    }


# ---- Markdown


def to_markdown(
    title: str,
    tables: Sequence[Table],
    notes: Iterable[str] = (),
    before: Sequence[str] = (),
) -> str:
    """Return a page of tables.

    Args:
      title: title of the page.
      tables: in their order.
      notes: footnotes about the data, after those about the numbers.
      before: sections before the tables, in Markdown.
    """
    parts = [f"# {title}", *before, *map(_section_markdown, tables), "## How to read the tables"]
    parts.append("\n".join(f"- {note}" for note in (*table_footnotes(tables), *notes)))
    return "\n\n".join(parts) + "\n"


def table_footnotes(tables: Sequence[Table]) -> list[str]:
    """Return sentences that define the entries, with the numbers of seeds and intervals."""
    arms = [row for table in tables for row in table.rows if not row.is_baseline]
    counts = {values.n for row in arms for values in row.spreads if values.n}
    intervals = sum(
        entry is not None and entry.low is not None for row in arms for entry in row.differences
    )
    references = " or ".join(dict.fromkeys(table.reference for table in tables))
    seeds = "no run is finished yet"
    if counts:
        low, high = min(counts), max(counts)
        seeds = f"{high}" if low == high else f"{low} to {high}, as some runs are missing"
    return [
        "An entry is mean ± standard deviation (n): n is the number of seeds, the standard "
        f"deviation is that of the sample. Seeds per entry: {seeds}. A single run has no standard "
        f"deviation. {MISSING} marks a missing value. Baselines are in italics; those that are "
        "fitted use the labels that the seed selects for the arms too.",
        f"Δ is the difference to `{references}`, paired by seed, with its 95 % interval (Student's "
        "t). **Unresolved** means that the interval includes 0 or cannot be computed (fewer than "
        "two pairs, or all pairs equal): neither a difference nor equality is shown.",
        "The intervals cover the choice of labels and chance in training, which the seed "
        "determines together, but not the choice of test images. They are not corrected for "
        f"multiple comparisons: of the {intervals} on this page, one in twenty would be resolved "
        "by chance if all arms were equal.",
        "Arms are compared with the best baseline without a network (Student's t interval, paired "
        "by seed, corrected for the number of arms). If none is resolved above it, differences are "
        f"marked {NOT_DISCRIMINATING}: they are no reason to prefer an arm.",
    ]


def discrimination_sentence(result: Discrimination) -> str:
    """Return a sentence that compares the arms with the best baseline."""
    metric = result.metric
    verdict = {
        "above": "resolved above it: " + "; ".join(f"`{_one_line(arm)}`" for arm in result.above),
        "tie": "**with these seeds no arm is resolved as different from it**",
        "mixed": "no arm is resolved above it, and some are below",
        "below": "**every arm is resolved below it: no network is worthwhile on this test**",
        "open": "arms or seeds are missing: not compared",
    }[result.verdict]
    return (
        f"{metric.title}: the best baseline, {_one_line(result.baseline)}, has "
        f"{result.value:{metric.form}}; {verdict}."
    )


def _section_markdown(table: Table) -> str:
    section = table.section
    grid = [_head(table), *(_row(table, row) for row in table.rows)]
    if section.transposed:
        grid = [list(column) for column in zip(*grid, strict=True)]
    lines = "\n".join(markdown_table(grid[0], grid[1:]))
    judged = "\n".join(f"- {discrimination_sentence(entry)}" for entry in table.discriminations)
    return "\n\n".join(filter(None, (f"## {section.title}", judged, lines, section.note)))


def _head(table: Table) -> list[str]:
    columns = [""]
    for metric in table.section.metrics:
        columns.append(_one_line(metric.title))
        if metric.compared:
            columns.append(f"Δ to {_one_line(table.reference)}")
    return columns


def _row(table: Table, row: Row) -> list[str]:
    name = _one_line(row.name)
    cells = [f"*{name}*" if row.is_baseline else name]
    undecided = [
        entry.metric for entry in table.discriminations if entry.verdict not in ("above", "open")
    ]
    for metric, values, to_reference in zip(
        table.section.metrics, row.spreads, row.differences, strict=True
    ):
        cells.append(_format_spread(metric, values, constant=row.is_baseline and values.n == 1))
        if metric.compared:
            mark = f" {NOT_DISCRIMINATING}" if metric in undecided else ""
            cells.append(format_difference(metric, to_reference, mark))
    return cells


def _format_spread(metric: Metric, values: Spread, *, constant: bool) -> str:
    """Format mean, standard deviation and number of seeds; of a constant only the mean."""
    if values.mean is None:
        return MISSING
    mean = f"{values.mean:{metric.form}}"
    if constant:
        return mean
    std = "" if values.std is None else f" ± {values.std:{metric.form.lstrip('+')}}"
    return f"{mean}{std} ({values.n})"


def format_difference(metric: Metric, to_reference: Difference | None, mark: str = "") -> str:
    """Return a difference with its interval, number of pairs and verdict."""
    if to_reference is None or to_reference.mean is None:
        return MISSING
    mean, low, high, n, verdict = to_reference
    form = f"+{metric.form.lstrip('+')}"
    interval = "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
    return f"{mean:{form}}{interval} ({n}) {verdict}{mark}"


def _one_line(text: str) -> str:
    """Escape what would end a cell or a line of a table; underscores stay as they are."""
    return " ".join(text.split()).replace("|", "\\|")
