"""A shipped configuration made small enough for a test: the same path, seconds instead of days."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from matplotlib.backends.backend_agg import FigureCanvasAgg
from ml_collections import ConfigDict
from PIL import Image

from configs import finetune, pretrain

SMALL_MODEL = {
    "model.variant": "tiny",
    "model.image_size": 64,
    "model.embed_dim": 8,
    "model.depths": (1,),  # most of the time of a test goes into compilation
    "model.num_heads": (1,),
    "model.window_sizes": (8,),
    "model.decoder_embed_dim": 16,
    "model.decoder_depth": 1,
    "model.decoder_num_heads": 2,
}
TWO_STAGES = {"model.depths": (1, 1), "model.num_heads": (1, 2), "model.window_sizes": (8, 8)}
"""Sizes for tests of stages, and for 128 px: of one stage the decoder has 1,024 tokens there."""
SMALLEST_MODEL = {"model.image_size": 32}
SHORT_RUN = {
    "dataset": "bigearthnet_s1",
    "batch_size": 4,
    "total_steps": 6,
    "warmup_epochs": 1.0,
    "schedule_epochs": 50.0,  # runs of every length share one compiled step
    "log_every": 1,
    "checkpoint_every": 2,
    "picture_every": 6,
    "picture_patches": 0,  # a picture takes as long as the steps
    "diagnostic_patches": 4,
}
SMALL_ENCODER = {
    name: value for name, value in {**SMALL_MODEL, **TWO_STAGES}.items() if "decoder" not in name
}
SHORT_TUNING = {
    "batch_size": 4,
    "total_steps": 4,
    "warmup_epochs": 1.0,
    "schedule_epochs": 50.0,
    "log_every": 1,
    "validate_every": 100,  # and at the end: a picture takes longer than an epoch
    "optimizer.base_learning_rate": 0.1,  # of small batches
}


def small_config(data_dir: Path, **changes) -> ConfigDict:
    """`configs/pretrain.py` on a small model, data and run."""
    config = pretrain.get_config()
    config.update_from_flattened_dict(
        {**SMALL_MODEL, **SHORT_RUN, "data_dir": str(data_dir), **changes}
    )
    return config.lock()


BIGEARTHNET = "dataset=bigearthnet_s1,"
"""Dataset of the fixture `built`; later arguments win."""


def small_tuning(data_dir: Path, arguments: str = "", **changes) -> ConfigDict:
    """`configs/finetune.py` on small data and a short run; a random encoder is small too."""
    config = finetune.get_config(BIGEARTHNET + arguments)
    model = SMALL_ENCODER if config.init == "random" else {}
    config.update_from_flattened_dict(
        {**model, **SHORT_TUNING, "data_dir": str(data_dir), **changes}
    )
    return config.lock()


def probe_config(data_dir: Path, arguments: str, **changes) -> ConfigDict:
    """`configs/finetune.py` for a frozen encoder on small data."""
    config = finetune.get_config(BIGEARTHNET + arguments)
    short = {"batch_size": 4, "probe.steps": 40, "probe.batch_size": 8}
    config.update_from_flattened_dict({**short, "data_dir": str(data_dir), **changes})
    return config.lock()


def tuning_flags(data_dir: Path, arguments: str, **changes) -> list[str]:
    """The same on the command line, of a random encoder."""
    settings = {**SMALL_ENCODER, **SHORT_TUNING, "data_dir": str(data_dir), **changes}
    return [
        f"--config={finetune.__file__}:{BIGEARTHNET}{arguments}",
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]


def flags(data_dir: Path, **changes) -> list[str]:
    """The same on the command line."""
    settings = {**SMALL_MODEL, **SHORT_RUN, "data_dir": str(data_dir), **changes}
    return [
        f"--config={pretrain.__file__}",
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]


@contextmanager
def undrawn() -> Iterator[None]:
    """Figures are made, and none is rendered, which takes most of their time: all are a pixel."""

    def print_png(_, file) -> None:
        Image.new("RGB", (1, 1)).save(file, "PNG")

    with mock.patch.object(FigureCanvasAgg, "print_png", print_png):
        yield
