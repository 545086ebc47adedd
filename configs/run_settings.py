"""Fields of every run; the configuration files add what is trained and how."""

from ml_collections import ConfigDict, config_dict


def run_settings() -> ConfigDict:
    """Return the common fields with their defaults."""
    config = ConfigDict()
    config.trainer = ""  # a key of cli.train.TRAINERS
    config.seed = 0

    config.dataset = ""  # "name", "name/config" or "name/config:version"
    config.data_dir = "data"

    config.data = ConfigDict()  # how records are read; the batches are the same for all values
    config.data.cache = "auto"  # none, host, device, or auto: the fastest place that fits
    config.data.cache_dir = config_dict.placeholder(str)  # of files that keep it; None: memory
    config.data.read_threads = 4  # batches that a process reads at the same time
    config.data.read_workers = 0  # reading processes, for many cores; 0: threads read
    config.data.prefetch = 4  # batches read ahead

    config.dtype = "auto"  # float32, bfloat16, or auto: bfloat16 on accelerators
    config.grad_accum_steps = 1  # microbatches of a device, one after the other: less memory
    config.remat = "none"  # or dots, full: what is recomputed in the backward pass; less memory
    config.resize_mode = "resize"  # an entry of preprocess.RESIZE_MODES
    config.random_flip = True

    config.total_steps = config_dict.placeholder(int)  # instead of epochs

    config.log_every = 20  # steps
    config.max_to_keep = 3  # latest checkpoints; two at least, in case one is damaged
    config.keep_period = config_dict.placeholder(
        int
    )  # steps; also keep every checkpoint at a multiple

    config.upload_every = 60.0  # seconds; logs of a run in a bucket, besides every checkpoint

    config.deterministic = False  # on a GPU: the same bits in every run, slower
    config.compilation_cache = "~/.cache/sar_mixmae_jax"  # of compiled programs; None: no cache
    return config
