"""The tables of a comparison as plain data, and as JSON; `markdown.py` writes them for readers."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sar_mixmae_jax.experiments.statistics import (
    CONFIDENCE,
    BySeed,
    Difference,
    Discrimination,
    Metric,
    Result,
    Spread,
    by_seed,
    difference,
    discrimination,
    spread,
)


@dataclasses.dataclass(frozen=True)
class Section:
    """What one table shows.

    Attributes:
      title: its heading.
      metrics: its columns.
      note: what a reader must know, below it.
      judged: whether the baselines decide if the test discriminates. Not where they are
        references of another kind, such as the error of a constant.
      upright: metrics as rows and arms as columns, for many metrics.
    """

    title: str
    metrics: tuple[Metric, ...]
    note: str = ""
    judged: bool = False
    upright: bool = False


class Row(NamedTuple):
    """An arm or a baseline.

    Attributes:
      name: of it.
      is_baseline: whether it needs no network; what is the same for all seeds has no spread.
      spreads: of every metric.
      differences: of every metric to the reference; None for baselines, the reference itself and
        metrics that are not compared.
    """

    name: str
    is_baseline: bool
    spreads: tuple[Spread, ...]
    differences: tuple[Difference | None, ...]


class Table(NamedTuple):
    """A filled section.

    Attributes:
      section: what it shows.
      reference: the arm that the others are compared with.
      rows: first the arms, then the baselines.
      discriminations: of the compared metrics, where the section is judged.
    """

    section: Section
    reference: str
    rows: tuple[Row, ...]
    discriminations: tuple[Discrimination, ...]


def tabulate(
    section: Section,
    results: Sequence[Result],
    baselines: Sequence[Result],
    arms: Sequence[str],
    reference: str = "none",
) -> Table:
    """Fills a section; arms without a result have their row too.

    Args:
      section: what to show.
      results: of all runs that are done.
      baselines: of all tasks; a baseline has a row where it has a value for one of the metrics.
      arms: in the order of the rows.
      reference: the arm that the others are compared with.

    Raises:
      InputError: an arm has two results for a seed.
    """
    measured = [by_seed(results, metric) for metric in section.metrics]
    without = [by_seed(baselines, metric) for metric in section.metrics]
    rows = [_arm_row(arm, section.metrics, measured, reference) for arm in arms]
    for name in dict.fromkeys(name for values in without for name in values):
        spreads = [spread(values.get(name, {}).values()) for values in without]
        rows.append(Row(name, True, tuple(spreads), (None,) * len(spreads)))
    found = [
        discrimination(metric, {arm: values.get(arm, {}) for arm in arms}, theirs)
        for metric, values, theirs in zip(section.metrics, measured, without, strict=True)
        if section.judged and metric.compared
    ]
    return Table(section, reference, tuple(rows), tuple(one for one in found if one))


def _arm_row(
    arm: str,
    metrics: Sequence[Metric],
    measured: Iterable[Mapping[str, BySeed]],
    reference: str,
) -> Row:
    spreads, differences = [], []
    for metric, values in zip(metrics, measured, strict=True):
        mine, theirs = values.get(arm, {}), values.get(reference, {})
        spreads.append(spread(mine.values()))
        apart = difference(mine, theirs, metric.higher_is_better)
        differences.append(apart if metric.compared and arm != reference else None)
    return Row(arm, False, tuple(spreads), tuple(differences))


def as_json(tables: Iterable[Table]) -> dict[str, Any]:
    """Everything in the tables as JSON has it; what is missing is None."""
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
                        "difference": apart._asdict() if apart else None,
                    }
                    for metric, values, apart in zip(
                        metrics, row.spreads, row.differences, strict=True
                    )
                ],
            }
            for row in table.rows
        ],
        "discriminates": [
            {
                "task": one.metric.task,
                "metric": one.metric.name,
                "best_baseline": one.baseline,
                "value": one.value,
                "arms_above": list(one.above),
                "verdict": one.verdict,
            }
            for one in table.discriminations
        ],
    }


MISSING = "–"
NOTHING = "†"
"""After a difference in a metric in which no arm is resolved above the best baseline."""


def markdown(title: str, tables: Sequence[Table], notes: Iterable[str] = ()) -> str:
    """A page.

    Args:
      title: its heading.
      tables: in their order.
      notes: further footnotes: what the data are, what they cannot say.
    """
    parts = [f"# {title}", *map(_section, tables), "## How to read the tables"]
    parts.append("\n".join(f"- {note}" for note in (*footnotes(tables), *notes)))
    return "\n\n".join(parts) + "\n"


def footnotes(tables: Iterable[Table]) -> list[str]:
    """What the numbers are, and how many there are of them."""
    tables = [*tables]
    arms = [row for table in tables for row in table.rows if not row.is_baseline]
    counts = {values.n for row in arms for values in row.spreads if values.n}
    intervals = [one for row in arms for one in row.differences if one and one.low is not None]
    references = " or ".join(dict.fromkeys(table.reference for table in tables))
    seeds = "no run is done yet"
    if counts:
        low, high = min(counts), max(counts)
        seeds = f"{high}" if low == high else f"{low} to {high}, as some are missing"
    return [
        "An entry is mean ± spread (n): n is the number of seeds, the spread is the sample "
        f"standard deviation over them. Seeds for an entry: {seeds}. A single run has no spread. "
        f"{MISSING} is no value. Baselines are in italics; where they learn, it is from the labels "
        "that the seed chose for the arms too.",
        f"Δ is the difference to `{references}`, paired by seed over the seeds that both have, "
        "with its 95 % interval (Student's t). **Unresolved** means that the interval includes 0 "
        "or cannot be computed (fewer than two pairs, or all of them equal): the test does not say "
        "which is better, and does not say that they are equal.",
        "The intervals are about the choice of labels and chance in training, which a seed decides "
        "together, and not about the choice of test images. They "
        f"stand each for itself: of the {len(intervals)} on this page, one in twenty would be "
        "resolved by chance if all arms were equal.",
        "Arms are held against the best baseline without a network (Student's interval of the "
        "lead, paired by seed, corrected for the number of arms). A test **discriminates nothing** "
        "where none is resolved from it. Where none is resolved above it, differences are marked "
        f"{NOTHING}: they are no reason to prefer an arm.",
    ]


def sentence(one: Discrimination) -> str:
    """What a metric's baselines say about the test."""
    form = one.metric.form
    found = f"{one.metric.title}: the best baseline, {_plain(one.baseline)}, has {one.value:{form}}"
    said = {
        "above": f"resolved above it: {'; '.join(map(_plain, one.above))}",
        "tie": "**no arm is resolved from it: this test discriminates nothing**",
        "mixed": "no arm is resolved above it, and some are below",
        "below": "**every arm is resolved below it: none is worth its network on this test**",
        "open": "an arm is missing, or has too few seeds, so it cannot be said whether the test "
        "discriminates",
    }
    return f"{found}; {said[one.verdict]}."


def _section(table: Table) -> str:
    section = table.section
    grid = [_head(table), *(_row(table, row) for row in table.rows)]
    if section.upright:
        grid = [list(row) for row in zip(*grid, strict=True)]
    ruler = ["---", *["---:"] * (len(grid[0]) - 1)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in [grid[0], ruler, *grid[1:]])
    judged = "\n".join(f"- {sentence(one)}" for one in table.discriminations)
    return "\n\n".join(filter(None, (f"## {section.title}", judged, lines, section.note)))


def _head(table: Table) -> list[str]:
    columns = [""]
    for metric in table.section.metrics:
        columns.append(_plain(metric.title))
        if metric.compared:
            columns.append(f"Δ to {_plain(table.reference)}")
    return columns


def _row(table: Table, row: Row) -> list[str]:
    name = _plain(row.name)
    cells = [f"*{name}*" if row.is_baseline else name]
    idle = [one.metric for one in table.discriminations if one.verdict not in ("above", "open")]
    for metric, values, apart in zip(
        table.section.metrics, row.spreads, row.differences, strict=True
    ):
        cells.append(_value(metric, values, row.is_baseline and values.n == 1))
        if metric.compared:
            cells.append(_difference(metric, apart, f" {NOTHING}" if metric in idle else ""))
    return cells


def _value(metric: Metric, values: Spread, constant: bool) -> str:
    if values.mean is None:
        return MISSING
    mean = f"{values.mean:{metric.form}}"
    if constant:
        return mean
    around = "" if values.std is None else f" ± {values.std:{metric.form.lstrip('+')}}"
    return f"{mean}{around} ({values.n})"


def _difference(metric: Metric, apart: Difference | None, mark: str) -> str:
    if apart is None or apart.mean is None:
        return MISSING
    form = f"+{metric.form.lstrip('+')}"
    interval = ""
    if apart.low is not None and apart.high is not None:
        interval = f" [{apart.low:{form}}, {apart.high:{form}}]"
    return f"{apart.mean:{form}}{interval} ({apart.n}) {apart.verdict}{mark}"


def _plain(text: str) -> str:
    """A text in which no character ends a cell or a line; underscores as they are."""
    return " ".join(text.split()).replace("|", "\\|")
