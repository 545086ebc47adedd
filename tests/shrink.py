"""A shipped configuration made small enough for a test: the same path, seconds instead of days."""

from pathlib import Path

from ml_collections import ConfigDict

from configs import pretrain

SMALL_MODEL = {
    "model.variant": "tiny",
    "model.width": 8,
    "model.depths": (1, 1),  # two stages compile in half the time of four
    "model.heads": (1, 2),
    "model.windows": (8, 8),
    "model.decoder_width": 16,
    "model.decoder_depth": 1,
    "model.decoder_heads": 2,
}
SHORT_RUN = {
    "batch_size": 4,
    "max_steps": 6,
    "warmup_epochs": 1.0,
    "log_every": 1,
    "checkpoint_every": 2,
    "picture_every": 6,
    "picture_patches": 1,
    "diagnostic_patches": 4,
}


def small_config(data_dir: Path, **changes) -> ConfigDict:
    """`configs/pretrain.py` on a small model, data and run."""
    config = pretrain.get_config()
    config.update_from_flattened_dict(
        {**SMALL_MODEL, **SHORT_RUN, "data_dir": str(data_dir), **changes}
    )
    return config.lock()


def flags(data_dir: Path, **changes) -> list[str]:
    """The same on the command line."""
    settings = {**SMALL_MODEL, **SHORT_RUN, "data_dir": str(data_dir), **changes}
    return [
        f"--config={pretrain.__file__}",
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]
