"""Pretraining with the published recipe.

  sar-mixmae train --config=pretrain:variant=base,weighting=per_channel --workdir=runs/base

The published run has 64 epochs of BigEarthNet v2 (train and validation) in batches of 2,048, on
eight devices. Arguments, all optional: variant, dataset, weighting.
"""

from ml_collections import ConfigDict, config_dict

from configs.run_settings import run_settings
from sar_mixmae_jax.training.config import parse_arguments


def get_config(arguments: str = "") -> ConfigDict:
    """Return the published recipe; the module lists the arguments."""
    given = parse_arguments(
        arguments, variant="base", dataset="bigearthnet_s1/v2", weighting="per_channel"
    )
    config = run_settings()
    config.trainer = "pretrain"
    config.dataset = given["dataset"]
    config.split = "train+validation"  # as published
    config.bands = ("VH", "VV")  # any of the dataset's, in order
    config.init = "random"  # or a run or checkpoint of pretraining, to continue with its model
    # `init` of other bands: refused (strict), or changed by a rule of models/resize.BAND_RULES; the
    # same bands in another order are never refused.
    config.init_bands = "strict"

    config.model = ConfigDict()
    config.model.variant = given["variant"]  # a key of architecture.VARIANTS; None below: its value
    config.model.attention = "auto"  # an entry of KERNEL_CHOICES: fused where it works
    config.model.norm = "auto"  # LayerNorm: an entry of KERNEL_CHOICES
    config.model.image_size = 128
    config.model.depths = config_dict.placeholder(tuple)
    config.model.num_heads = config_dict.placeholder(tuple)
    config.model.window_sizes = config_dict.placeholder(tuple)
    config.model.embed_dim = config_dict.placeholder(int)
    config.model.decoder_embed_dim = config_dict.placeholder(int)
    config.model.decoder_depth = config_dict.placeholder(int)
    config.model.decoder_num_heads = config_dict.placeholder(int)

    config.objective = "mixmae"  # or "simmim": no mixing, mask tokens, a linear decoder
    config.mask_ratio = 0.5  # with "mixmae" 0.25 and 0.75 are the same objective
    config.mask_rounding = "nearest"  # of the number of mask units; "down": as the released code
    config.norm_pix_loss = True  # targets by mask unit, as published; False: docs/comparison.md

    config.weighting = ConfigDict()  # fields of objectives.weighting.Weighting
    config.weighting.name = given["weighting"]
    config.weighting.domain = "standardised"  # as the released code; "physical": as the papers
    config.weighting.scale = 1.0
    config.weighting.power_domain = "linear"
    config.weighting.clip = config_dict.placeholder(tuple)
    config.weighting.smooth = 1
    config.weighting.normalise = "none"

    config.speckle = ConfigDict()  # fields of objectives.speckle_filter.SpeckleFilter
    config.speckle.filter = "none"  # boxcar, lee, enhanced_lee, gamma_map
    config.speckle.window = 7  # side in pixels of the records, odd
    config.speckle.looks = 4.4  # of Sentinel-1 IW GRDH at 10 m
    config.speckle.apply_to = "target"  # or "input_and_target", or "weights" alone
    config.speckle.weights = False  # True: loss weights from the filtered power

    config.batch_size = 2048  # of all devices; each microbatch must be even
    config.epochs = 64.0  # trained
    config.schedule_epochs = 1024.0  # of the learning rate's half-cosine
    config.warmup_epochs = 40.0

    config.optimizer = ConfigDict()
    config.optimizer.base_learning_rate = 1.5e-4  # times batch_size / 256
    config.optimizer.end_learning_rate = 0.0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = config_dict.placeholder(
        float
    )  # of the gradient; None as published

    config.checkpoint_every = 1000  # steps
    config.keep_best = config_dict.placeholder(int)  # number of best checkpoints to keep, too
    config.best_metric = "explained_variance"  # a key of checkpoint.METRIC_DIRECTION
    config.picture_every = 1000
    config.picture_patches = 3  # 0: no pictures
    config.diagnostic_patches = 32  # for weight diagnostics and pictures
    return config
