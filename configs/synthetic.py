"""Pretraining of `tiny` on simulated patches, to try the whole path on a laptop.

  sar-mixmae train --config=synthetic --workdir=runs/synthetic

Takes two minutes on two cores and trains no useful encoder: after 96 steps the model predicts
little more than the mean of each mask unit (`explained_variance` near 0). That needs real data, a
larger variant and 64 epochs.
"""

from ml_collections import ConfigDict

from configs import pretrain


def get_config(arguments: str = "") -> ConfigDict:
    """Return `pretrain` on small data; the arguments are the same, with other defaults."""
    config = pretrain.get_config(",".join(("variant=tiny,dataset=synthetic_s1", arguments)))
    config.split = "train"
    config.batch_size = 32
    config.epochs = 6.0
    config.schedule_epochs = 6.0
    config.warmup_epochs = 1.0
    config.optimizer.base_learning_rate = 8e-3  # peak 1e-3
    config.log_every = 8
    config.checkpoint_every = 32
    config.picture_every = 48
    return config
