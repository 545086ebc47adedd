"""Fine-tuning with the published recipe, linear probes and k nearest neighbours.

  sar-mixmae train \
    --config=finetune:task=classification,dataset=bigearthnet_s1/v2,init=runs/base \
    --workdir=runs/land_cover
  sar-mixmae train --config=finetune:task=flood,dataset=sen12_flood,init=runs/base \
    --workdir=runs/flood
  sar-mixmae train --config=finetune:task=segmentation,dataset=sen1floods11,init=runs/base \
    --workdir=runs/water
  sar-mixmae train --config=finetune:task=linear_probe,dataset=bigearthnet_s1/v2,init=runs/base \
    --workdir=runs/probe
  sar-mixmae evaluate --workdir=runs/land_cover

Arguments:
  task: classification, flood, segmentation or pair_segmentation (fine-tuning), linear_probe or knn
    (frozen encoder, for the task of the dataset).
  dataset: name, name/config or name/config:version.
  init: a run, one of its checkpoints, or `random`.
  variant: of a random encoder.

The published run of 50 epochs of BigEarthNet has batches of 1,024, on eight devices; the batch of
the published flood runs is not known.
"""

from ml_collections import ConfigDict, config_dict

from configs.run_settings import run_settings
from sar_mixmae_jax.tasks.registry import get_task, task_names
from sar_mixmae_jax.training.config import parse_arguments

FROZEN = ("linear_probe", "knn")
"""Tasks with a frozen encoder."""


def get_config(arguments: str = "") -> ConfigDict:
    """Return the published recipe; the module lists the arguments."""
    given = parse_arguments(
        arguments, task="classification", dataset="bigearthnet_s1/v2", init="random", variant=""
    )
    frozen, random = given["task"] in FROZEN, given["init"] == "random"
    config = run_settings()
    config.trainer = "probe" if frozen else "finetune"
    config.task = given["task"]
    config.dataset = given["dataset"]
    config.train_split = "train"
    config.validation = "split"  # none: train to the last step, nothing is evaluated or chosen
    config.validation_split = "validation"
    config.label_fraction = (
        1.0  # of both splits, stratified; smaller ones are subsets of larger ones
    )
    config.label_seed = 0  # of the subset

    config.init = given["init"]
    # Of the model, in order; None: of the encoder, or VH, VV of a random one.
    config.bands = config_dict.placeholder(tuple)
    # An encoder of other bands: refused (strict), or changed by a rule of models/resize.BAND_RULES;
    # the same bands in another order are never refused.
    config.init_bands = "strict"
    # Name of a dataset; None: of the encoder, or of the dataset that a random one is trained on.
    config.statistics = config_dict.placeholder(str)
    config.model = ConfigDict()  # None: of the checkpoint, or of the variant
    config.model.variant = given["variant"] or config_dict.placeholder(str)
    config.model.attention = "auto"  # an entry of KERNEL_CHOICES: fused where it works
    config.model.norm = "auto"  # LayerNorm: an entry of KERNEL_CHOICES
    config.model.image_size = config_dict.placeholder(int)  # flood: of a tile
    config.model.depths = config_dict.placeholder(tuple)
    config.model.num_heads = config_dict.placeholder(tuple)
    config.model.window_sizes = config_dict.placeholder(tuple)
    config.model.embed_dim = config_dict.placeholder(int)

    config.tiling = "spatial"  # flood: a key of heads.TILINGS
    config.pooling = "mean"  # flood: a key of heads.POOLINGS

    config.log_every = 20
    config.validate_every = config_dict.placeholder(int)  # steps; None: an epoch
    config.max_to_keep = 2
    config.keep_best = 1
    config.best_metric = config_dict.placeholder(str)  # on the validation split; None: of the task
    if frozen:
        config.batch_size = config_dict.placeholder(int)  # records; None: of the task
        config.probe = ConfigDict()
        config.probe.learning_rates = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # tried side by side
        config.probe.stages = "last"  # of the encoder; all: mean tokens of every stage
        config.probe.steps = 2000
        config.probe.batch_size = 1024
        config.probe.weight_decay = 1e-4
        config.probe.neighbours = 20
        config.probe.temperature = 0.07  # of the neighbours' weights, by cosine similarity
        return config

    config.head_init = config_dict.placeholder(str)  # tiny or xavier; None: as published
    config.drop_path = 0.1  # highest rate of stochastic depth
    config.flip_dates = "together"  # flood: or "independent", as the released code
    known = given["task"] in task_names()  # training refuses others
    config.batch_size = get_task(given["task"]).train_batch_size if known else 1024  # all devices
    config.epochs = 50.0
    config.schedule_epochs = config_dict.placeholder(float)  # None: of the run
    config.warmup_epochs = 5.0

    config.optimizer = ConfigDict()
    config.optimizer.base_learning_rate = 5e-4  # times batch_size / 256
    config.optimizer.end_learning_rate = 1e-6
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = config_dict.placeholder(float)
    # From scratch, layer-wise decay would leave the first layers almost untrained.
    config.optimizer.layer_decay = 1.0 if random else 0.7

    config.checkpoint_every = config_dict.placeholder(int)  # steps; None: an epoch
    if known:
        config.update(get_task(given["task"]).recipe)
    return config
