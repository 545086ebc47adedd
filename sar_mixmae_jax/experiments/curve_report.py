"""Result of learning curves: answers, tables, and a figure for each task."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sar_mixmae_jax.experiments import reconstruction_metrics
from sar_mixmae_jax.experiments.comparison_report import draw_comparison
from sar_mixmae_jax.experiments.comparison_tables import (
    NOT_DISCRIMINATING as MARK,
)
from sar_mixmae_jax.experiments.comparison_tables import (
    Section,
    Table,
    format_difference,
    make_table,
    to_json,
    to_markdown,
)
from sar_mixmae_jax.experiments.curve_figure import (
    RANDOM,
    CurveResult,
    draw_curves,
    seed_spread,
)
from sar_mixmae_jax.experiments.reconstruction_metrics import (
    BIAS,
    ERROR,
    EXPLAINED,
    RMSE,
    Metrics,
)
from sar_mixmae_jax.experiments.seed_statistics import (
    Difference,
    Metric,
    Result,
    corrected_confidence,
    difference,
    values_by_seed,
)
from sar_mixmae_jax.experiments.trials import has_comparable_metrics
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors, write_json
from sar_mixmae_jax.utils.tables import markdown_table

Questions = Sequence[tuple[str, Sequence[tuple[str, str]]]]
"""(question, its comparisons (arm, reference)); arms that were not compared are left out."""


class Answer(NamedTuple):
    """Answer to a question for a task.

    Attributes:
      question: the question.
      task: name of the task.
      verdict: "yes", "no", "mixed" or "not resolved".
      comparisons: (measurement, arm, reference, difference) that it follows from.
    """

    question: str
    task: str
    verdict: str
    comparisons: tuple[tuple[str, str, str, Difference], ...]


def answer_questions(
    questions: Questions,
    results: Sequence[Result],
    tasks: Mapping[str, Sequence[str]],
    scores: Mapping[str, Metric],
    arms: Sequence[str],
) -> list[Answer]:
    """Answer every question for every task by paired tests over seeds.

    The confidence of an interval is corrected for the number of comparisons that are planned behind
    an answer (Bonferroni). The answer is "yes" if a difference is resolved as better and none as
    worse, "no" if one is resolved as worse and none as better, "mixed" if there are both, else
    "not resolved".

    Args:
      questions: with their comparisons.
      results: results of all seeds, at the end of pretraining; of random encoders without it.
      tasks: measurements of each task.
      scores: metric of each measurement.
      arms: that are compared, finished or not.
    """
    answers = []
    for question, compared in questions:
        for task, names in tasks.items():
            planned = [
                (name, arm, reference)
                for name in names
                for arm, reference in compared
                if {arm, reference} <= set(arms)
            ]
            values = {name: values_by_seed(results, scores[name]) for name in names}
            comparisons = []
            for name, arm, reference in planned:
                confidence = corrected_confidence(len(planned))
                of_arms = values[name].get(arm, {}), values[name].get(reference, {})
                better = scores[name].higher_is_better
                resolved = difference(*of_arms, better, confidence)
                comparisons.append((name, arm, reference, resolved))
            if any(entry[-1].n for entry in comparisons):
                verdict = _verdict({entry[-1].verdict for entry in comparisons})
                answers.append(Answer(question, task, verdict, tuple(comparisons)))
    return answers


def _verdict(verdicts: set[str]) -> str:
    if {"better", "worse"} <= verdicts:
        return "mixed"
    if "better" in verdicts:
        return "yes"
    return "no" if "worse" in verdicts else "not resolved"


def answer_table(
    answers: Sequence[Answer], scores: Mapping[str, Metric], below: Collection[str]
) -> str:
    """Return the answers with the numbers behind them, as Markdown.

    Args:
      answers: to all questions.
      scores: metric of each measurement.
      below: measurements in which no arm is resolved above the best baseline.
    """
    rows = []
    for question, task, verdict, comparisons in answers:
        for number, (name, arm, reference, values) in enumerate(comparisons):
            first = number == 0
            rows.append(
                [
                    question if first else "",
                    task.replace("_", " ") if first else "",
                    f"**{verdict}**" if first else "",
                    f"{scores[name].title}: {arm} − {reference}",
                    format_difference(scores[name], values, MARK if name in below else ""),
                ]
            )
    head = ["question", "task", "answer", "difference of", "mean [interval] (seeds)"]
    return "\n".join(markdown_table(head, rows))


# ---- page


def write_report(
    config: ConfigDict,
    workdir: Path,
    curves: Sequence[CurveResult],
    references: Mapping[str, Mapping[str, Mapping[int | None, Metrics]]],
    scores: Mapping[str, Metric],
    notes: Sequence[str],
) -> list[Path]:
    """Write comparison.md, comparison.json, comparison.png and curves-TASK.png.

    Args:
      config: configuration of the comparison.
      workdir: for the files.
      curves: curves of all finished points.
      references: metrics of the baselines by measurement, name and seed; None: for all seeds.
      scores: metric of each measurement.
      notes: sentences about data, cost and machine.

    Returns:
      Paths of the files.
    """
    tasks = {task: tuple(names) for task, names in config.tasks.items()}
    curves = [c for c in curves if has_comparable_metrics(config, c.arm, c.name)]
    results = [
        Result(curve.arm, seed, curve.name, metrics)
        for curve in curves
        if curve.share == 1 or curve.arm == RANDOM
        for seed, metrics in curve.metrics.items()
    ]
    baselines = [
        Result(name, seed, measurement, metrics)
        for measurement, of_measurement in references.items()
        for name, by_seed in of_measurement.items()
        for seed, metrics in by_seed.items()
    ]
    tables = [
        make_table(section, results, baselines, config.compared, config.reference)
        for section in _sections(config, scores)
    ]
    answers = answer_questions(config.questions, results, tasks, scores, config.compared)
    below = _not_discriminating(tables)
    title = f"Comparison: {', '.join(tasks)}; {config.pretrain.model.variant}"
    sections = answer_section(answers, scores, below), curve_table(curves, scores)
    first = [section for section in sections if section]
    paths = [workdir / f"comparison.{kind}" for kind in ("md", "json", "png")]
    with report_write_errors(workdir, "make room and start again; what is finished is kept"):
        atomic_write(paths[0], to_markdown(title, tables, notes, first).encode())
        write_json(paths[1], _numbers(tables, answers, curves))
        draw_comparison(
            [*scores.values(), ERROR],
            results,
            baselines,
            config.compared,
            paths[2],
            title=title,
            reference=config.reference,
        )
        for task, names in tasks.items():
            path = workdir / f"curves-{task}.png"
            draw_curves([scores[name] for name in names], curves, baselines, images(config), path)
            paths.append(path)
    return paths


def _sections(config: ConfigDict, scores: Mapping[str, Metric]) -> list[Section]:
    """Return the content of all tables: scores by task, then reconstruction."""
    sections = [
        Section(task.replace("_", " ").capitalize(), tuple(scores[n] for n in names), judged=True)
        for task, names in config.tasks.items()
    ]
    note = reconstruction_metrics.NOTES[config.pretrain.norm_pix_loss]
    title = "Pretraining, measured without weights"
    return [*sections, Section(title, (ERROR, EXPLAINED, RMSE, BIAS), note)]


def _not_discriminating(tables: Sequence[Table]) -> set[str]:
    """Return the measurements in which no arm is resolved above the best baseline."""
    return {
        entry.metric.task
        for table in tables
        for entry in table.discriminations
        if entry.verdict not in ("above", "open")
    }


def _numbers(
    tables: Sequence[Table], answers: Sequence[Answer], curves: Sequence[CurveResult]
) -> dict[str, Any]:
    """Return the content of comparison.json."""
    answered = [
        {
            "question": answer.question,
            "task": answer.task,
            "verdict": answer.verdict,
            "comparisons": [
                {"measurement": name, "arm": arm, "reference": reference, **values._asdict()}
                for name, arm, reference, values in answer.comparisons
            ],
        }
        for answer in answers
    ]
    curves_by_field = [curve._asdict() for curve in curves]
    return {**to_json(tables), "answers": answered, "curves": curves_by_field}


def images(config: ConfigDict) -> int:
    """Return the number of images that a pretraining sees."""
    return config.pretrain.total_steps * config.pretrain.batch_size


def answer_section(
    answers: Sequence[Answer], scores: Mapping[str, Metric], below: Collection[str]
) -> str:
    """Return the answers with their explanation, as Markdown; see `answer_table`."""
    return "\n\n".join(
        [
            "## Answers",
            answer_table(answers, scores, below),
            "Differences are paired by seed, with Student's t intervals whose confidence is 95 % "
            "for all comparisons planned behind an answer together (Bonferroni); they are not "
            "corrected for the number of answers, nor for looking before all seeds are finished. "
            "**Yes**: one is resolved as better and none as worse; **no**: one is resolved as "
            "worse and none as better; **mixed**: both; everything else is **not resolved**, which "
            f"is not equality. {MARK}: no arm is resolved above the best baseline in this "
            "measurement.",
        ]
    )


def curve_table(curves: Sequence[CurveResult], scores: Mapping[str, Metric]) -> str:
    """Return mean scores by share of the pretraining, of arms with several, as Markdown, or ""."""
    shares = sorted({curve.share for curve in curves})
    means = {
        (curve.name, curve.arm, curve.share): seed_spread(curve, scores[curve.name])
        for curve in curves
        if curve.name in scores
    }
    arms = dict.fromkeys(curve.arm for curve in curves if 0 < curve.share < 1)
    rows = []
    for name, metric in scores.items():
        for arm in arms:
            cells = [means.get((name, RANDOM if s == 0 else arm, s)) for s in shares]
            texts = ["–" if c is None or c.mean is None else f"{c.mean:.3f}" for c in cells]
            rows.append([metric.title, arm, *texts])
    if not rows:
        return ""
    head = ["mean over seeds after a share of the pretraining of", "", *map("{:g}".format, shares)]
    return "## Learning curves\n\n" + "\n".join(markdown_table(head, rows))
