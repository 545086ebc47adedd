"""What every run is told, whatever it trains; the recipes add what they train and how."""

from ml_collections import ConfigDict, config_dict


def run_settings() -> ConfigDict:
    """The fields that all recipes share, with defaults that a recipe may change."""
    config = ConfigDict()
    config.trainer = ""  # an entry of main.PROGRAMS
    config.seed = 0

    config.dataset = ""  # "name", "name/config" or "name/config:version"
    config.data_dir = "data"

    config.dtype = "auto"  # float32, bfloat16, or auto: bfloat16 on accelerators
    config.grad_accum_steps = 1  # shares of a device's batch, one after the other: less memory
    config.remat = False  # recompute blocks in the backward pass: less memory, a third more time
    config.resize_mode = "resize"  # an entry of spatial.FITS
    config.random_flip = True

    config.total_steps = config_dict.placeholder(int)  # instead of epochs

    config.log_every = 20  # steps
    config.max_to_keep = 3  # the latest; two at least, lest one be damaged
    config.keep_period = config_dict.placeholder(int)  # and those of every so many steps

    config.deterministic = False  # on a GPU: the same bits every time, slower
    config.compilation_cache = "~/.cache/sar_mixmae_jax"  # compiled programs; None for none
    return config
