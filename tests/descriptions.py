"""A description of a run that was never made, for tests of what is stored."""

import dataclasses
from typing import Any

from sar_mixmae_jax.data.metadata import DatasetDescription, Statistics
from sar_mixmae_jax.models.architecture import make_architecture
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.migration import add_defaults
from sar_mixmae_jax.training.run_description import (
    ModelDescription,
    RunDescription,
    SourceDescription,
)

STATISTICS = Statistics((-19.0, -12.0), (3.0, 3.0), "all patches")
SOURCE = SourceDescription("a/checkpoints/1", 1, "d", weighting=Weighting(), sha256="a" * 64)


def describe(config: dict[str, Any] | None = None, **model: Any) -> RunDescription:
    """Return a description with this configuration and other fields of the model."""
    description = ModelDescription(
        variant="base",
        architecture=make_architecture("base"),
        dtype="float32",
        bands=("VH", "VV"),
        unit="dB",
        statistics=STATISTICS,
    )
    dataset = DatasetDescription(
        "bigearthnet_s1/v1/2.0.0/train",
        "a" * 64,
        8,
        bands=("VH", "VV"),
        unit="dB",
        statistics=STATISTICS,
    )
    if config is None:
        config = {"seed": 0, "trainer": "pretrain", "init": "random"}
    return RunDescription(add_defaults(config), dataset, dataclasses.replace(description, **model))


def metadata(**config: Any) -> dict[str, Any]:
    """Return what a run hands over to be stored with a checkpoint."""
    return {**describe({"seed": 0, **config}).to_json(), "seen": ""}
