"""The embedded default: `tiny` on simulated patches, to see the whole path on a laptop.

Command:
  python -m sar_mixmae_jax.main --config=configs/synthetic.py --workdir=runs/synthetic

Two minutes on two cores. It shows that everything works, not what the method can do: after 96 steps
the model predicts little more than the mean of each cell, whose loss is about 2.5
(`explained_variance`
near 0). A useful encoder takes real data, a larger variant, and 64 epochs.
"""

from ml_collections import ConfigDict

from configs import pretrain


def get_config(arguments: str = "") -> ConfigDict:
    """`configs/pretrain.py` in small; takes the same arguments but other defaults."""
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
