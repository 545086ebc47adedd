"""The tables of a comparison as plain data, and as JSON; `markdown.py` writes them for readers."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sar_mixmae_jax.comparison.statistics import (
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
