"""Comparison of loss weightings by downstream results, with seeds and baselines.

  sar-mixmae compare --config=compare --workdir=runs/compare
  sar-mixmae compare --config=compare:bigearthnet --workdir=runs/full

The first, on the simulator with `tiny`, takes about an hour on two cores and builds its datasets.
The second is the published set-up on BigEarthNet v2 and SEN12-FLOOD with `base`, built beforehand.
Both write comparison.md, comparison.json and comparison.png, and continue where they were stopped.

An arm is a way to obtain an encoder: `init` is "pretrain", "random", or the path of other runs
("runs/mine-{seed}"); `pretrain` and `finetune` are the fields that it changes. `ARMS` holds more
than are compared by default: --config.compared="('none','none_lee','simmim')" chooses.
"""

from ml_collections import ConfigDict

from configs import finetune, pretrain
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
        "pretrain": {"weighting": {**ROBUST, "scale": -1.0}, "speckle": {**LEE, "weights": True}},
    },
    "none_lee": {"init": "pretrain", "pretrain": {"weighting": {"name": "none"}, "speckle": LEE}},
    "per_channel_lee": {
        "init": "pretrain",
        "pretrain": {
            "weighting": {"name": "per_channel", "domain": "standardised"},
            "speckle": LEE,
        },
    },
    "simmim": {
        "init": "pretrain",
        "pretrain": {"objective": "simmim", "weighting": {"name": "none"}},
    },
}
COMPARED = (
    "random",
    "none",
    "shared_average",
    "per_channel_physical",
    "per_channel_standardised",
)
"""Arms that are compared unless --config.compared names others."""


def get_config(arguments: str = "") -> ConfigDict:
    """Return the comparison of a scale.

    Args:
      arguments: an entry of `SCALES`; "" is "simulated".

    Raises:
      InputError: the scale is unknown.
    """
    return look_up(SCALES, arguments or "simulated", "config argument")()


def simulated() -> ConfigDict:
    """Return a comparison on simulated data that takes an hour on two cores."""
    config = common(
        pretrain.get_config("variant=tiny,dataset=synthetic_s1/compare"),
        finetune.get_config("task=classification,dataset=synthetic_s1/compare,init=compare"),
        finetune.get_config("task=flood,dataset=flood_pairs/compare,init=compare"),
    )
    config.build = ConfigDict(  # built where missing
        {
            "land_cover": {
                "name": "synthetic_s1/compare",
                "options": {"patches": 2048, "size": 64},
            },
            "floods": {
                "name": "flood_pairs/compare",
                "options": {"pairs": 1024, "size": 128},
            },
        }
    )
    pretraining = config.pretrain
    pretraining.split = "train"
    pretraining.model.image_size = 64  # a quarter of the time
    pretraining.batch_size = 32
    pretraining.total_steps = 512
    pretraining.epochs = pretraining.schedule_epochs = 8.0
    pretraining.warmup_epochs = 0.5
    pretraining.optimizer.base_learning_rate = 8e-3  # peak 1e-3
    pretraining.checkpoint_every = pretraining.picture_every = 10_000  # at the end
    pretraining.log_every = 40
    pretraining.max_to_keep = 1
    for task, steps in (("land_cover", 160), ("floods", 80)):
        tuning = config.finetune[task]
        tuning.model.variant = "tiny"
        tuning.label_fraction = 0.1
        tuning.batch_size = 16
        tuning.total_steps = steps
        tuning.validate_every = tuning.checkpoint_every = steps // 4
        tuning.max_to_keep = 1
        tuning.log_every = 40
        tuning.optimizer.base_learning_rate = 1.6e-2  # peak 1e-3
        tuning.warmup_epochs = 1.0
        tuning.optimizer.layer_decay = 1.0  # arms differ in the encoder only
        # Head weights near zero would hardly train the encoder in so few steps.
        tuning.head_init = "xavier"
    config.measured_batches = 4
    return config


def bigearthnet() -> ConfigDict:
    """Return the published set-up: 64 epochs of pretraining, 50 of fine-tuning, three seeds."""
    config = common(
        pretrain.get_config("variant=base,dataset=bigearthnet_s1/v2"),
        finetune.get_config("task=classification,dataset=bigearthnet_s1/v2,init=compare"),
        finetune.get_config("task=flood,dataset=sen12_flood/chronological,init=compare"),
    )
    config.build = ConfigDict()
    config.seeds = 3
    config.pretrain.split = "train"  # the validation split selects checkpoints

    for task in config.finetune:
        config.finetune[task].model.variant = "base"
    return config


def common(pretraining: ConfigDict, land_cover: ConfigDict, floods: ConfigDict) -> ConfigDict:
    """Return the fields that all scales share."""
    config = ConfigDict()
    config.trainer = "compare"
    config.seeds = 5  # number of seeds of pretraining and fine-tuning
    config.reference = "none"  # arm that the others are compared with
    config.data_dir = "data"
    config.arms = ConfigDict(ARMS)
    config.compared = COMPARED  # arms in the order of the tables
    config.pretrain = pretraining
    config.finetune = ConfigDict({"land_cover": land_cover, "floods": floods})
    config.measured_batches = 16  # batches of 32 held-out images, for reconstruction metrics
    config.compilation_cache = pretraining.compilation_cache
    return config


SCALES = {"simulated": simulated, "bigearthnet": bigearthnet}
"""Configurations by the argument of `--config=compare:ARGUMENT`."""
