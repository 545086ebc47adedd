"""Points of learning curves, and the configurations that they can be computed for."""

from typing import NamedTuple

from ml_collections import ConfigDict

from sar_mixmae_jax.experiments.curve_figure import RANDOM
from sar_mixmae_jax.experiments.pixel_probe import is_linear_on_pixels
from sar_mixmae_jax.experiments.reconstruction_metrics import PRETRAINING
from sar_mixmae_jax.utils.errors import InputError

SHARED = ("dataset", "split", "bands", "model", "batch_size", "total_steps")
"""Fields of the pretraining that arms cannot change."""


class Point(NamedTuple):
    """Metrics of an arm after a share of its pretraining.

    Attributes:
      name: `PRETRAINING` or the measurement.
      arm: name of the arm.
      share: share of the pretraining, 0 to 1.
    """

    name: str
    arm: str
    share: float

    @property
    def title(self) -> str:
        """Name in files and messages."""
        return f"{self.name}-{self.arm}-{self.share:g}"


def plan_points(config: ConfigDict) -> list[Point]:
    """Return all points in the order in which they are computed."""
    names = (PRETRAINING, *config.finetune)
    planned = [Point(name, RANDOM, 0.0) for name in config.finetune]
    for arm in config.compared:
        if arm == RANDOM:
            continue
        whole = arm in config.curves or not config.curves
        shares = config.shares if whole else config.shares[-1:]
        planned += [Point(name, arm, share) for share in shares for name in names]
    return planned


def check_curves(config: ConfigDict) -> None:
    """Check the fields that only learning curves have.

    Raises:
      InputError: names the field that cannot be used.
    """
    shares = tuple(config.shares)
    if not shares or list(shares) != sorted({*shares}) or shares[0] <= 0 or shares[-1] != 1:
        raise InputError(f"shares is {shares}: expected rising numbers above 0, the last of them 1")
    if RANDOM not in config.compared:
        raise InputError(f"compared is {tuple(config.compared)}: expected {RANDOM} among them")
    steps = [max(1, round(share * config.pretrain.total_steps)) for share in shares]
    if len({*steps}) < len(steps):
        raise InputError(
            f"shares is {shares}, of {config.pretrain.total_steps} steps: two of them are the same "
            "step, expected different ones"
        )
    grouped = sorted(name for names in config.tasks.values() for name in names)
    if grouped != sorted(config.finetune):
        raise InputError(
            f"tasks has the measurements {', '.join(grouped)}, and finetune "
            f"{', '.join(sorted(config.finetune))}: expected every one of finetune once"
        )
    if empty := [task for task, names in config.tasks.items() if not names]:
        raise InputError(f"tasks.{empty[0]} has no measurement: leave it out, or name one")
    for arm in config.compared:
        _check_arm(arm, config.arms[arm])


def _check_arm(name: str, arm: ConfigDict) -> None:
    """Check that one program serves an arm like the others.

    Raises:
      InputError: names what it changes that only ordinary runs can change.
    """
    expected = RANDOM if name == RANDOM else "pretrain"
    if arm.init != expected:
        raise InputError(f"arms.{name}.init is {arm.init}: expected {expected}")
    changed = [f"pretrain.{field}" for field in SHARED if field in arm.get("pretrain", {})]
    changed += ["finetune"] if arm.get("finetune") else []
    if arm.get("pretrain", {}).get("speckle", {}).get("apply_to") == "input_and_target":
        changed.append("pretrain.speckle.apply_to")
    if changed:
        raise InputError(
            f"arms.{name} changes {', '.join(changed)}, which all arms of learning curves share: "
            "change config.pretrain or config.finetune, for all of them"
        )


def footnotes(config: ConfigDict) -> list[str]:
    """Return sentences about pretraining and measurements."""
    pretraining = config.pretrain
    sentences = [
        f"Pretraining: {pretraining.model.variant} at {pretraining.model.image_size} px on "
        f"{pretraining.dataset}, {pretraining.total_steps} steps of {pretraining.batch_size} "
        f"images, {config.seeds} seeds planned. In pretraining and fine-tuning nothing is "
        "selected: the last step counts.",
    ]
    sentences += [
        f"{name}: {run.dataset}, label_fraction {run.label_fraction:g}, labels chosen by seed; "
        f"{_training(run)}."
        for name, run in config.finetune.items()
    ]
    return sentences


def _training(run: ConfigDict) -> str:
    if run.trainer == "probe":
        return "a linear layer on frozen features, its rate chosen on the validation split"
    if is_linear_on_pixels(run):
        return (
            "a logistic regression on frozen maps at the tokens of the first stage, its penalty "
            "chosen on the validation split"
        )
    return f"{run.total_steps} steps of {run.batch_size} records"
