"""Comparisons of ways to pretrain, with seeds and baselines (docs/comparison.md).

  sar-mixmae compare --config=compare:quick --workdir=runs/quick
  sar-mixmae compare --config=compare:cpu --workdir=runs/cpu
  sar-mixmae compare --config=compare:gpu --workdir=runs/gpu
  sar-mixmae compare --config=compare:events --config.init=runs/base --workdir=runs/events
  sar-mixmae compare --config=compare:bigearthnet --workdir=runs/full

The first three are learning curves of `tiny` on the simulator, whose datasets they build; "events"
leaves one event of Sen1Floods11 out at a time; "bigearthnet" is the published set-up with `base`,
on datasets that are built beforehand. All continue where they were stopped.

An arm is a way to obtain an encoder: `init` is "pretrain" or "random"; `pretrain` and `finetune`
are the fields that it changes. `ARMS` holds more than are compared by default:
--config.compared="('random','none','none_lee')" chooses. With "bigearthnet", `init` may also be the
path of other runs ("runs/mine-{seed}"). `QUESTIONS` says which arms answer what.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from configs import finetune, pretrain
from sar_mixmae_jax.experiments.event_encoder import KEPT_FIELDS
from sar_mixmae_jax.utils.errors import look_up

ROBUST = {
    "name": "per_channel",
    "domain": "physical",
    "power_domain": "db",
    "clip": (1.0, 99.0),
}
LEE = {"filter": "lee"}  # of the target

ARMS: dict[str, dict] = {
    # Layer-wise decay would leave the first layers of a random encoder almost untrained.
    "random": {"init": "random", "finetune": {"optimizer": {"layer_decay": 1.0}}},
    "none": {"init": "pretrain", "pretrain": {"weighting": {"name": "none"}}},
    "shared_average": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "shared_average", "domain": "physical"}},
    },
    "per_channel_physical": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "per_channel", "domain": "physical"}},
    },
    "per_channel_standardised": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "per_channel", "domain": "standardised"}},
    },
    "shared_average_standardised": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "shared_average", "domain": "standardised"}},
    },
    "per_channel_db_clipped": {"init": "pretrain", "pretrain": {"weighting": ROBUST}},
    "bright": {"init": "pretrain", "pretrain": {"weighting": {**ROBUST, "scale": -1.0}}},
    "bright_filtered": {
        "init": "pretrain",
        "pretrain": {
            "weighting": {**ROBUST, "scale": -1.0},
            "speckle": {**LEE, "apply_to": "weights"},
        },
    },
    "none_lee": {"init": "pretrain", "pretrain": {"weighting": {"name": "none"}, "speckle": LEE}},
    "per_channel_lee": {
        "init": "pretrain",
        "pretrain": {
            "weighting": {"name": "per_channel", "domain": "standardised"},
            "speckle": LEE,
        },
    },
    "none_unnormalised": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "none"}, "norm_pix_loss": False},
    },
    "simmim": {
        "init": "pretrain",
        "pretrain": {"objective": "simmim", "weighting": {"name": "none"}},
    },
}
QUESTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "Does pretraining help?": (("none", "random"),),
    "Do weights of standardised values help?": (
        ("per_channel_standardised", "none"),
        ("shared_average_standardised", "none"),
    ),
    "Do weights of physical values help?": (
        ("per_channel_physical", "none"),
        ("shared_average", "none"),
        ("per_channel_db_clipped", "none"),
    ),
    "Do filtered targets help?": (
        ("none_lee", "none"),
        ("per_channel_lee", "per_channel_standardised"),
    ),
    "Does it help not to normalise the targets?": (("none_unnormalised", "none"),),
    "Do weights for bright areas help?": (("bright", "none"), ("bright_filtered", "none")),
    "Is MixMAE better than SimMIM?": (("none", "simmim"),),
}
"""Comparisons (arm, reference) that answer each question of learning curves."""
TUNING_RATE = 3e-4
"""Peak rate of fine-tuning, chosen on validation for `none` (docs/comparison.md)."""
LISTED = tuple(arm for arm in ARMS if arm not in ("shared_average", "per_channel_lee"))
"""Arms of `cpu`, for its ten hours without `per_channel_lee`, and without `shared_average`, which
differs little from `per_channel` with two bands."""
COMPARED = (
    "random",
    "none",
    "shared_average",
    "per_channel_physical",
    "per_channel_standardised",
)
"""Arms of "bigearthnet"."""


def get_config(arguments: str = "") -> ConfigDict:
    """Return the comparison of a scale.

    Args:
      arguments: an entry of `SCALES`; "" is "quick".

    Raises:
      InputError: the scale is unknown.
    """
    return look_up(SCALES, arguments or "quick", "config argument")()


def quick() -> ConfigDict:
    """Return a comparison of about 20 minutes on two cores, which is no evidence."""
    too_few = ("land_cover_1_frozen", "land_cover_1")  # 1 % would be ten patches
    measured = tuple(name for name in MEASURED if name not in too_few)
    config = learning_curves(patches=1024, pairs=256, seeds=2, measured=measured)
    config.compared = ("random", "none", "per_channel_standardised")
    config.shares, config.curves = (1 / 4, 1.0), ("none",)
    for name in config.tasks.water:
        config.finetune[name].label_fraction = 0.1
    set_length(config, epochs=2.0, steps=12)
    return config


def cpu() -> ConfigDict:
    """Return a comparison that takes at most ten hours (estimated) on two cores.

    It may be run in parts of any length.
    """
    config = learning_curves(patches=20_000, pairs=2048, seeds=3)
    config.compared = LISTED
    config.curves = ("none",)
    set_length(config, epochs=1.0, steps=360)
    return config


def gpu() -> ConfigDict:
    """Return a comparison for about eight minutes (estimated) on one H100 or H200 with 16 cores.

    A subset of the arms and measurements; use "cpu" for all of them, also on a GPU.
    """
    measured = ("land_cover_1_frozen", "land_cover_1", "water_frozen", "floods_frozen")
    config = learning_curves(patches=20_000, pairs=2048, seeds=4, measured=measured)
    config.compared = ("random", "none", "per_channel_standardised", "none_lee")
    config.curves = ("none",)
    config.pretrain.batch_size, config.pretrain.optimizer.base_learning_rate = 64, 4e-3
    set_length(config, epochs=1.0, steps=360)
    return config


LAND_COVER, FLOODS = "synthetic_s1/compare", "flood_pairs/compare"
FROZEN = {"task": "linear_probe", "init": "compare"}
MEASURED: dict[str, tuple[dict[str, str], float]] = {
    "land_cover_1_frozen": ({**FROZEN, "dataset": LAND_COVER}, 0.01),
    "land_cover_1": ({"task": "classification", "dataset": LAND_COVER}, 0.01),
    "land_cover_10_frozen": ({**FROZEN, "dataset": LAND_COVER}, 0.1),
    "land_cover_10": ({"task": "classification", "dataset": LAND_COVER}, 0.1),
    "water_frozen": ({"task": "segmentation", "dataset": FLOODS}, 0.02),
    "water": ({"task": "segmentation", "dataset": FLOODS}, 0.02),
    "floods_frozen": ({**FROZEN, "dataset": FLOODS}, 0.1),
    "floods": ({"task": "flood", "dataset": FLOODS}, 0.1),
}
"""Measurements of learning curves: arguments of `configs/finetune.py`, fraction of the labels."""


def learning_curves(
    *, patches: int, pairs: int, seeds: int, measured: Sequence[str] = tuple(MEASURED)
) -> ConfigDict:
    """Return the fields that the comparisons of learning curves share.

    Args:
      patches: simulated for pretraining and land cover, those of `train`.
      pairs: simulated for floods and water, those of `train`.
      seeds: number of seeds of pretraining and fine-tuning.
      measured: names in `MEASURED`.
    """
    config = common(pretrain.get_config(f"variant=tiny,dataset={LAND_COVER}"), {})
    config.trainer = "learning_curves"
    config.seeds = seeds
    config.shares = (1 / 16, 1 / 4, 1.0)  # of the pretraining, at which encoders are measured
    config.questions = tuple(QUESTIONS.items())  # answered where their arms are compared
    config.curves = ()  # arms that are measured at all shares, others at the last; (): all arms
    config.tasks = ConfigDict(
        {
            task: names
            for task in ("land_cover", "water", "floods")
            if (names := tuple(name for name in measured if name.startswith(task)))
        }
    )
    config.build = ConfigDict(  # built where missing
        {
            "land_cover": {"name": LAND_COVER, "options": {"patches": patches, "size": 128}},
            "floods": {"name": FLOODS, "options": {"pairs": pairs, "size": 128}},
        }
    )
    config.pretrain.split = "train"
    config.pretrain.batch_size = 32
    config.pretrain.optimizer.base_learning_rate = 8e-3  # peak 1e-3
    for name in measured:
        arguments, fraction = MEASURED[name]
        text = ",".join(f"{key}={value}" for key, value in arguments.items())
        tuning = finetune.get_config(text)
        tuning.label_fraction = fraction
        if tuning.trainer == "probe":
            tuning.probe.stages = "all"
            tuning.best_metric = "validation/loss"  # 1 % of the split is too little for a score
            tuning.probe.steps, tuning.probe.batch_size = 1000, 64
        else:
            tuning.batch_size = 8 if arguments["task"] == "segmentation" else 16
            tuning.optimizer.base_learning_rate = TUNING_RATE * 256 / tuning.batch_size
            tuning.optimizer.layer_decay = 1.0  # arms differ in the encoder only
            tuning.head_init = "xavier"  # weights near zero hardly reach the encoder at first
        if arguments["task"] == "segmentation":
            tuning.crop_size = 128
            if name.endswith("frozen"):
                tuning.freeze_encoder, tuning.segmentation.decoder_width = True, 0
        config.finetune[name] = tuning
    for run in (config.pretrain, *config.finetune.values()):
        run.model.attention = "plain"  # the seeds are an axis that no kernel has been run with
        run.model.norm = "plain"
    del config.arms.random["finetune"]  # its rates are those of all arms here
    config.measured_batches = 8
    return config


def set_length(config: ConfigDict, *, epochs: float, steps: int) -> None:
    """Set the length of pretraining in epochs, and of fine-tuning in steps."""
    pretraining = config.pretrain
    patches = config.build.land_cover.options.patches
    pretraining.total_steps = 16 * round(epochs * patches / pretraining.batch_size / 16)
    pretraining.epochs = pretraining.schedule_epochs = epochs
    pretraining.warmup_epochs = epochs / 16
    for tuning in config.finetune.values():
        if tuning.trainer != "probe":
            tuning.total_steps, tuning.warmup_epochs = steps, 0.0


def bigearthnet() -> ConfigDict:
    """Return the published set-up: 64 epochs of pretraining, 50 of fine-tuning, three seeds."""
    config = common(
        pretrain.get_config("variant=base,dataset=bigearthnet_s1/v2"),
        {
            "land_cover": finetune.get_config(
                "task=classification,dataset=bigearthnet_s1/v2,init=compare"
            ),
            "floods": finetune.get_config(
                "task=flood,dataset=sen12_flood/chronological,init=compare"
            ),
        },
    )
    config.trainer = "compare"
    config.build = ConfigDict()
    config.seeds = 3
    config.pretrain.split = "train"  # the validation split selects checkpoints

    for task in config.finetune:
        config.finetune[task].model.variant = "base"
    return config


def events() -> ConfigDict:
    """Return few-shot segmentation of chips as of Sen1Floods11, with one event left out.

    `--config.init` names a run of pretraining, of any size and objective, that saw none of the
    images. `adapt` continues it with the sizes, objective, masking, normalisation of the targets
    and speckle filter of the run; its own count where a converted encoder stores none.
    """
    config = ConfigDict()
    config.trainer = "event_transfer"
    config.seeds = 3
    config.init = "runs/base"  # of the encoders
    config.data_dir = "data"
    config.build = ConfigDict()
    config.chips = 8  # with labelled and measured pixels, to train on, of other events
    config.compilation_cache = pretrain.get_config().compilation_cache
    config.finetune = finetune.get_config("task=segmentation,dataset=sen1floods11,init=compare")
    tuning = config.finetune
    tuning.validation = "none"
    tuning.batch_size, tuning.crop_size, tuning.total_steps = 8, 128, 200
    tuning.warmup_epochs, tuning.schedule_epochs = 0.0, 1.0
    tuning.optimizer.base_learning_rate = 3.2e-2  # peak 1e-3
    tuning.optimizer.layer_decay = 1.0  # the same for random and pretrained encoders
    tuning.head_init = "xavier"
    recipe = pretrain.get_config("weighting=none")
    config.adapt = ConfigDict({name: recipe[name] for name in ADAPT})
    config.adapt.batch_size, config.adapt.total_steps = 8, 200
    config.adapt.warmup_epochs, config.adapt.schedule_epochs = 0.0, 1.0
    config.adapt.optimizer.base_learning_rate = 1.6e-2  # peak 5e-4
    return config


ADAPT = (
    *KEPT_FIELDS,
    "weighting",
    "random_flip",
    "optimizer",
    "schedule_epochs",
    "warmup_epochs",
    "dtype",
    "remat",
)
"""Fields of pretraining that `events` continues with."""


def common(pretraining: ConfigDict, tasks: dict[str, ConfigDict]) -> ConfigDict:
    """Return the fields that all sizes share."""
    config = ConfigDict()
    config.trainer = ""  # an entry of cli.compare.COMPARISONS
    config.reference = "none"  # arm that the others are compared with
    config.data_dir = "data"
    config.arms = ConfigDict(ARMS)
    config.compared = COMPARED  # arms in the order of the tables
    config.pretrain = pretraining
    config.finetune = ConfigDict(tasks)
    config.measured_batches = 16  # batches of 32 held-out images, for reconstruction metrics
    config.compilation_cache = pretraining.compilation_cache
    return config


SCALES = {"quick": quick, "cpu": cpu, "gpu": gpu, "bigearthnet": bigearthnet, "events": events}
"""Configurations by the argument of `--config=compare:ARGUMENT`."""
