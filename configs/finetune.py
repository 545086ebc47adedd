"""Fine-tuning, probing and neighbours, with the published recipe.

Commands:
  python -m sar_mixmae_jax.main \
    --config=configs/finetune.py:task=classification,dataset=bigearthnet_s1/v2,init=runs/base \
    --workdir=runs/land_cover
  python -m sar_mixmae_jax.main \
    --config=configs/finetune.py:task=flood,dataset=sen12_flood,init=runs/base --workdir=runs/flood
  python -m sar_mixmae_jax.main \
    --config=configs/finetune.py:task=linear_probe,dataset=bigearthnet_s1/v2,init=runs/base \
    --workdir=runs/probe
  python -m sar_mixmae_jax.cli.evaluate --workdir=runs/land_cover

Arguments: task: classification or flood (fine-tuning), linear_probe or knn (frozen encoder, of
whichever task the dataset is for); dataset; init: the workdir of a run, one of its checkpoints, or
`random`; variant: of a random encoder. The published run of 50 epochs of BigEarthNet has batches of
1,024, on eight devices; the batch of the published flood runs is not known.
"""

from ml_collections import ConfigDict, config_dict

from configs.run_settings import run_settings
from sar_mixmae_jax.training.config import parse_arguments

FROZEN = ("linear_probe", "knn")
"""Tasks that leave the encoder as it is."""


def get_config(arguments: str = "") -> ConfigDict:
    """The published recipe; see the module for the arguments."""
    given = parse_arguments(
        arguments, task="classification", dataset="bigearthnet_s1", init="random", variant=""
    )
    frozen, random = given["task"] in FROZEN, given["init"] == "random"
    floods = given["task"] == "flood"
    config = run_settings()
    config.trainer = "probe" if frozen else "finetune"
    config.task = given["task"]
    config.dataset = given["dataset"]
    config.train_split = "train"
    config.validation_split = "validation"
    config.label_fraction = 1.0  # of both, stratified; smaller ones are parts of larger ones
    config.label_seed = 0  # of the choice

    config.init = given["init"]
    config.bands = ("VH", "VV")  # of a random encoder; another one has its own
    config.statistics = config_dict.placeholder(
        str
    )  # a random encoder's: of a dataset; None: its own
    config.model = ConfigDict()  # None: as the encoder has it; a random one is of its variant
    config.model.variant = given["variant"] or config_dict.placeholder(str)
    config.model.image_size = config_dict.placeholder(int)  # floods: of a tile
    config.model.depths = config_dict.placeholder(tuple)
    config.model.num_heads = config_dict.placeholder(tuple)
    config.model.window_sizes = config_dict.placeholder(tuple)
    config.model.embed_dim = config_dict.placeholder(int)

    config.tiling = "spatial"  # floods: an entry of heads.TILINGS
    config.pooling = "mean"  # floods: an entry of heads.POOLINGS

    config.log_every = 20
    config.validate_every = config_dict.placeholder(int)  # steps; None: an epoch
    config.max_to_keep = 2
    config.keep_best = 1
    config.best_metric = config_dict.placeholder(str)  # on the validation split; None: the task's
    if frozen:
        config.batch_size = config_dict.placeholder(int)  # records at a time; None: the task's
        config.probe = ConfigDict()
        config.probe.learning_rates = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # trained side by side
        config.probe.steps = 2000
        config.probe.batch_size = 1024
        config.probe.weight_decay = 1e-4
        config.probe.neighbours = 20
        config.probe.temperature = 0.07  # of the votes of neighbours, by cosine similarity
        return config

    config.head_init = config_dict.placeholder(str)  # tiny or xavier; None: as published, see heads
    config.drop_path = 0.1  # highest rate at which branches of blocks are left out
    config.batch_size = 64 if floods else 1024  # of all devices; a pair of 512 px has 32 tiles
    config.epochs = 50.0
    config.schedule_epochs = config_dict.placeholder(float)  # None: over what is trained
    config.warmup_epochs = 5.0

    config.optimizer = ConfigDict()
    config.optimizer.base_learning_rate = 5e-4  # times batch_size / 256
    config.optimizer.end_learning_rate = 1e-6
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = config_dict.placeholder(float)
    # From scratch, decay would leave the first layers almost untrained: a crippled baseline.
    config.optimizer.layer_decay = 1.0 if random else 0.7

    config.checkpoint_every = config_dict.placeholder(int)  # steps; None: an epoch
    return config
