"""The sections of the page about the training: losses, and where the time went."""

from collections.abc import Mapping

import numpy as np

from sar_mixmae_jax.summary import curves, markup, wording
from sar_mixmae_jax.summary.axes import drawable, stem
from sar_mixmae_jax.summary.history import History, Series, lost, resumed, values_of
from sar_mixmae_jax.summary.markup import Markup, note, notice, section


def training(run: History) -> Markup:
    """Loss, gradient norm and learning rate."""
    png = curves.training(run.metrics, resumed(run.starts))
    names = ("loss", "gradient_norm", "learning_rate")
    holes = [
        f"{name} at step {wording.steps(steps)}"
        for name in names
        if len(steps := lost(run.metrics.get(name)))
    ]
    again = "Dashed vertical lines: the run was resumed." if resumed(run.starts) else ""
    return section(
        "Training",
        markup.picture(png, "Loss, gradient norm and learning rate over the steps") if png else "",
        note(again),
        note(left_out(run.metrics, names)),
        notice(f"Not finite (red crosses): {'; '.join(holes)}.") if holes else "",
    )


def speed(run: History) -> Markup:
    """Images per second, and what the time goes into."""
    png = curves.throughput(run.metrics, resumed(run.starts))
    told = " ".join(filter(None, (_time_spent(run.metrics), _saving(run.metrics))))
    return section(
        "Speed",
        markup.picture(png, "Images per second; what the time of a step goes into") if png else "",
        note(told),
        note(left_out(run.metrics, ("images_per_second", "seconds"))),
    )


def _time_spent(metrics: Mapping[str, Series]) -> str:
    """Shares of the time of all steps."""
    parts = curves.parts_of_step(metrics)
    if not parts:
        return ""
    edges, values = curves.durations(parts)
    spent = (values * np.diff(edges)).sum(1)
    shares = ", ".join(
        f"{curves.activity(name)} {100 * share:.1f} %"
        for name, share in zip(parts, spent / max(spent.sum(), 1e-12), strict=True)
    )
    slowest = values.sum(0).argmax()
    return (
        f"In {wording.duration(spent.sum())} of steps: {shares}. The slowest logged interval, "
        f"{wording.number(values.sum(0)[slowest])} s per step, ends at step "
        f"{wording.step(edges[slowest + 1])}."
    )


def _saving(metrics: Mapping[str, Series]) -> str:
    """How long checkpoints took, and how long training stood still for them."""
    told = []
    for name, what in (
        ("checkpoint_seconds", "to the disk"),
        ("checkpoint_blocked_seconds", "of waiting"),
    ):
        if saves := values_of(metrics, name):
            median, longest = (wording.number(f(saves.values)) for f in (np.median, np.max))
            told.append(f"{median}, {longest} s {what}")
    return f"Checkpoints (median, longest): {'; '.join(told)}." if told else ""


def left_out(metrics: Mapping[str, Series], names: tuple[str, ...]) -> str:
    """A sentence on the curves that there are not."""
    missing = [
        name
        for name in names
        if not any(stem(one) == name and drawable(metrics[one]) for one in metrics)
    ]
    return f"No curve, for want of two values: {', '.join(missing)}." if missing else ""
