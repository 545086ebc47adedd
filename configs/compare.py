"""Comparison of loss weightings by downstream results, with seeds and baselines.

  sar-mixmae compare --config=compare --workdir=runs/compare
  sar-mixmae compare --config=compare:bigearthnet --workdir=runs/full

The first, on the simulator with `tiny`, takes about an hour on two cores and builds its datasets.
The second is the published set-up on BigEarthNet v2 and SEN12-FLOOD with `base`, built beforehand.
Both write comparison.md, comparison.json and comparison.png, and continue where they were stopped.

An arm is a way to obtain an encoder: `init` is "pretrain", "random", or the path of other runs
("runs/mine-{seed}"); `pretrain` and `finetune` are the fields that it changes.
"""

from ml_collections import ConfigDict

from configs import finetune, pretrain
from sar_mixmae_jax.utils.errors import look_up

ARMS: dict[str, dict] = {
    # From scratch, layer-wise decay would leave the first layers almost untrained.
    "random": {"init": "random", "finetune": {"optimizer": {"layer_decay": 1.0}}},
    "none": {"init": "pretrain", "pretrain": {"weighting": {"name": "none"}}},
    "shared_average": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "shared_average", "domain": "physical"}},
    },
    "per_channel": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "per_channel", "domain": "physical"}},
    },
    "per_channel_standardised": {
        "init": "pretrain",
        "pretrain": {"weighting": {"name": "per_channel", "domain": "standardised"}},
    },
}


def get_config(arguments: str = "") -> ConfigDict:
    """The comparison on the simulator, or on `bigearthnet` and SEN12-FLOOD."""
    return look_up(SCALES, arguments or "simulated", "config argument")()


def simulated() -> ConfigDict:
    """An hour on two cores."""
    config = common(
        pretrain.get_config("variant=tiny,dataset=synthetic_s1/compare"),
        finetune.get_config("task=classification,dataset=synthetic_s1/compare,init=compare"),
        finetune.get_config("task=flood,dataset=flood_pairs/compare,init=compare"),
    )
    config.build = ConfigDict(  # made where they are not there
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
    one = config.pretrain
    one.split = "train"
    one.model.image_size = 64  # a quarter of the time
    one.batch_size = 32
    one.total_steps = 512
    one.epochs = one.schedule_epochs = 8.0
    one.warmup_epochs = 0.5
    one.optimizer.base_learning_rate = 8e-3  # peak 1e-3
    one.checkpoint_every = one.picture_every = 10_000  # at the end
    one.log_every = 40
    one.max_to_keep = 1
    for task, steps in (("land_cover", 160), ("floods", 80)):
        one = config.finetune[task]
        one.model.variant = "tiny"
        one.label_fraction = 0.1
        one.batch_size = 16
        one.total_steps = steps
        one.validate_every = one.checkpoint_every = steps // 4
        one.max_to_keep = 1
        one.log_every = 40
        one.optimizer.base_learning_rate = 1.6e-2  # peak 1e-3
        one.warmup_epochs = 1.0
        one.optimizer.layer_decay = 1.0  # for all arms: they differ in nothing but the encoder
        # Likewise; from nearly nothing, few steps would hardly reach the encoder.
        one.head_init = "xavier"
    config.measured_batches = 4
    return config


def bigearthnet() -> ConfigDict:
    """The published set-up: 64 epochs, 50 epochs, three seeds of all of it."""
    config = common(
        pretrain.get_config("variant=base,dataset=bigearthnet_s1/v2"),
        finetune.get_config("task=classification,dataset=bigearthnet_s1/v2,init=compare"),
        finetune.get_config("task=flood,dataset=sen12_flood/chronological,init=compare"),
    )
    config.build = ConfigDict()
    config.seeds = 3
    config.pretrain.split = "train"  # not the validation split, which chooses checkpoints

    for task in config.finetune:
        config.finetune[task].model.variant = "base"
    return config


def common(pretraining: ConfigDict, land_cover: ConfigDict, floods: ConfigDict) -> ConfigDict:
    """What both have."""
    config = ConfigDict()
    config.trainer = "compare"
    config.seeds = 5  # of pretraining and fine-tuning, 0 to this
    config.reference = "none"  # the arm that the others are compared with
    config.data_dir = "data"
    config.arms = ConfigDict(ARMS)
    config.compared = tuple(ARMS)  # of the arms, in the order of the tables
    config.pretrain = pretraining
    config.finetune = ConfigDict({"land_cover": land_cover, "floods": floods})
    config.measured_batches = 16  # of 32 held-out patches, for the error of reconstruction
    config.compilation_cache = pretraining.compilation_cache
    return config


SCALES = {"simulated": simulated, "bigearthnet": bigearthnet}
