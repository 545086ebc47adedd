"""`tiny` on a handful of patches, such as the example archive of BigEarthNet: a first look.

Command:
  python -m sar_mixmae_jax.main --config=configs/few_patches.py --workdir=runs/few

100 steps of six patches: a minute on two cores, half a minute of compilation. The published recipe
scales its rate with the batch, to 3.5e-6 for a batch of six, and would learn nothing; this one
peaks at 9.4e-4. With --config.total_steps=3000 --config.warmup_epochs=100 six real patches are
learnt
by heart (`explained_variance` 85 %), which shows that everything works and makes no useful encoder.
"""

from ml_collections import ConfigDict

from configs import pretrain


def get_config(arguments: str = "") -> ConfigDict:
    """`configs/pretrain.py` for few patches; takes the same arguments but other defaults."""
    few = "variant=tiny,dataset=bigearthnet_s1/v1_unsplit"
    config = pretrain.get_config(",".join((few, arguments)))
    config.split = "train"
    config.batch_size = 6
    config.total_steps = 100
    config.warmup_epochs = 10.0
    config.schedule_epochs = 3000.0
    config.optimizer.base_learning_rate = 4e-2  # peak 9.4e-4
    config.log_every = 10
    config.checkpoint_every = 100
    config.picture_every = 100
    config.picture_patches = 2
    return config
