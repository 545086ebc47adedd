"""Pretraining of `tiny` on a handful of patches, such as the example archive of BigEarthNet.

  sar-mixmae train --config=few_patches --workdir=runs/few

100 steps of six patches take a minute on two cores. The published recipe scales the learning rate
with the batch, to 3.5e-6 for a batch of six; this one peaks at 9.4e-4. With
--config.total_steps=3000 --config.warmup_epochs=100 the model overfits six real patches
(`explained_variance` 85 %).
"""

from ml_collections import ConfigDict

from configs import pretrain


def get_config(arguments: str = "") -> ConfigDict:
    """Return `pretrain` for few patches; the arguments are the same, with other defaults."""
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
