"""The section about the validation split: every score over the steps, and what was best."""

from collections import defaultdict
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from sar_mixmae_jax.pictures import png
from sar_mixmae_jax.summary import markup, wording
from sar_mixmae_jax.summary.axes import (
    COLOURS,
    DPI,
    STYLE,
    WIDTH,
    Metrics,
    draw_line,
    drawable,
    finish,
    mark_gaps,
    shown_name,
)
from sar_mixmae_jax.summary.best import Best, best, best_of
from sar_mixmae_jax.summary.history import History, Series, finite, lost, resumed
from sar_mixmae_jax.summary.markup import Markup, note, notice, section, table

PREFIX = "validation/"
LOSS = "validation/loss"
MEANS = {"": COLOURS[0], "macro": COLOURS[0], "micro": "tab:orange"}
"""Means over the classes, by the ends of names, with the colours of their curves."""

COLUMNS, MOST_PANELS = 3, 12


def validation(run: History, workdir: Path) -> Markup:
    """Scores on the validation split; nothing where none were logged."""
    metrics = {name: one for name, one in run.metrics.items() if name.startswith(PREFIX)}
    if not metrics:
        return Markup()
    chosen = best(run, workdir)
    panels = grouped({name: one for name, one in metrics.items() if name != LOSS}, chosen)
    shown = dict(list(panels.items())[:MOST_PANELS])
    curves = draw(shown, resumed(run.starts), chosen)
    first = chosen.metric if chosen else ""
    names = sorted(metrics, key=lambda name: (name != first, name))
    holes = [
        f"{wording.metric(name)} at step {wording.steps(steps)}"
        for name in names
        if len(steps := lost(metrics[name]))
    ]
    at_best = (f"at step {wording.step(chosen.step)}",) if chosen else ()
    head = ("", "last", "at step", "best", "at step", *at_best)
    rows = [(wording.metric(name), *_row(name, metrics[name], chosen)) for name in names]
    return section(
        "Validation",
        markup.picture(curves, "Scores on the validation split over the steps") if curves else "",
        note(_told(chosen, run)),
        notice(f"Not finite (red crosses): {'; '.join(holes)}.") if holes else "",
        note(f"Curves of the first {MOST_PANELS} of {len(panels)}." if shown != panels else ""),
        table(head, rows, range(1, len(head))),
    )


def _told(chosen: Best | None, run: History) -> str:
    """Which checkpoint is the best, in a sentence."""
    if chosen is None:
        metric = wording.metric(wording.value(run.config.get("best_metric")))
        return f"No checkpoint that was chosen by {metric} is here."
    split = wording.value(run.config.get("validation_split") or "not named")
    why = f"{wording.metric(chosen.metric)}: {chosen.value:.4f}, the {chosen.word}"
    return (
        f"Split: {split}. The best checkpoint (circle) is that of step "
        f"{wording.step(chosen.step)}, by {why} of the {chosen.kept} that are kept. Its scores "
        "here are those that it was chosen by, and therefore optimistic; what it is worth, an "
        "evaluation on the test split tells."
    )


def _row(name: str, series: Series, chosen: Best | None) -> list[str]:
    """Last and best value with their steps, and the value at the best checkpoint."""
    steps, values = finite(series)
    if not len(values):
        return ["not finite", *[""] * (4 if chosen else 3)]
    told = [wording.number(values[-1]), wording.step(steps[-1])]
    at = best_of(name, values)
    told += ["–", "–"] if at is None else [wording.number(values[at]), wording.step(steps[at])]
    if chosen:
        then = values[steps == chosen.step]
        told.append(wording.number(then[0]) if len(then) else "–")
    return told


def grouped(metrics: Metrics, chosen: Best | None) -> dict[str, dict[str, Series]]:
    """The curves by score and mean: {"f1": {"macro": …, "micro": …}}; what chooses is first."""
    panels: dict[str, dict[str, Series]] = defaultdict(dict)
    first = score_of(chosen.metric)[0] if chosen else ""
    for name in sorted(metrics, key=lambda name: (score_of(name)[0] != first, name)):
        if drawable(metrics[name]):
            score, mean = score_of(name)
            panels[score][mean] = metrics[name]
    return dict(panels)


def score_of(name: str) -> tuple[str, str]:
    """The score and the mean of a metric: ("f1", "macro") of "validation/f1_macro"."""
    score = name.removeprefix(PREFIX)
    stem, _, end = score.rpartition("_")
    return (stem, end) if stem and end in MEANS else (score, "")


@rc_context(STYLE)
def draw(
    panels: dict[str, dict[str, Series]], again: list[float], chosen: Best | None
) -> bytes | None:
    """A panel for every score, with a line for every mean; None where there are no curves.

    Args:
      panels: of `grouped`.
      again: steps after which the run went on.
      chosen: the best checkpoint, a circle where its metric is.
    """
    if not panels:
        return None
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(WIDTH, 1.5 * rows), layout="constrained", dpi=DPI)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (score, lines) in zip(axes, panels.items(), strict=False):
        for mean, series in lines.items():
            draw_line(axis, series, MEANS[mean], mean or None)
            mark_gaps(axis, series)
            if chosen and score_of(chosen.metric) == (score, mean):
                at, circle = ([chosen.step], [chosen.value]), {"mfc": "none", "mec": "black"}
                axis.plot(*at, "o", ms=7, clip_on=False, zorder=5, **circle)
        axis.set_title(shown_name(wording.metric(score)), loc="left")
        if any(lines):
            axis.legend(handlelength=1.2, borderaxespad=0.2)
        finish(axis, again)
    return png(figure)
