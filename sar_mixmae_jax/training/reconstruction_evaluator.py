"""Evaluation of pretraining: diagnostics and pictures of fixed patches.

The patches, their mask and their orientation stay the same throughout a run, so that pictures of
different steps can be compared.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.models.masking import masked_pixels, random_mask
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.objectives.diagnostics import constant_weights_warning, diagnose
from sar_mixmae_jax.objectives.preprocess import preprocess
from sar_mixmae_jax.objectives.radiometry import destandardise
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, reconstruct, restored_images
from sar_mixmae_jax.training import reconstruction_picture
from sar_mixmae_jax.training.reconstruction_picture import Panels
from sar_mixmae_jax.training.setup import EvalResult
from sar_mixmae_jax.training.sharding import fetch_replicated


class ReconstructionEvaluator:
    """Evaluator of the reconstruction of the first patches of a dataset."""

    picture = "reconstruction.png"

    def __init__(
        self,
        objective: PretrainObjective,
        patches: PatchDataset,
        *,
        count: int,
        drawn: int,
        seed: int,
    ) -> None:
        """Read the patches.

        Args:
          objective: objective of pretraining.
          patches: the dataset.
          count: number of patches, made even; fewer where there are fewer.
          drawn: number of them in the picture; 0: no picture.
          seed: random seed of the mask.
        """
        count = max(2, min(count, len(patches.source)) // 2 * 2)
        records = [patches.source[index] for index in range(count)]
        self._backscatter = jnp.stack([record["backscatter"] for record in records])
        self._ids = [record["id"].decode() for record in records[:drawn]]
        self._objective, self._bands = objective, patches.bands
        self._seed = np.uint32(seed % 2**32)  # traced: one program for all seeds

    def evaluate(self, params: Any) -> EvalResult:
        """Evaluate replicated parameters."""
        scalars, panels = self.reconstruct(params)
        headline = f"{100 * scalars['explained_variance']:.1f} % of the weighted variance explained"
        return EvalResult(scalars, headline, partial(self.draw, panels) if self._ids else None)

    def reconstruct(self, params: Any) -> tuple[dict[str, float], Panels]:
        """Return the diagnostics, and the panels of the picture."""
        scalars, panels = jax.device_get(
            evaluate_reconstruction(
                fetch_replicated(params),
                self._backscatter,
                self._seed,
                self._objective,
                self._bands,
            )
        )
        drawn = len(self._ids)
        panels = Panels(
            panels.measured[:drawn],
            panels.mixed[:drawn],
            panels.reconstructed[:drawn],
            panels.weights[:drawn],
            panels.mask,
        )
        return {name: float(value) for name, value in scalars.items()}, panels

    def warn(self, scalars: dict[str, float]) -> None:
        """Warn where the weighting hardly differs from none."""
        if self._objective.preprocessing.weighting.name == "none":
            return
        variations = {band: scalars[f"weight_cv/{band}"] for band in self._bands}
        if warning := constant_weights_warning(variations):
            logging.warning("%s", warning)

    def draw(self, panels: Panels, path: Path, title: str) -> None:
        """Write the picture."""
        norm_pix_loss = self._objective.norm_pix_loss
        reconstruction_picture.draw_reconstruction(
            panels,
            self._ids,
            self._bands,
            path,
            title=title,
            norm_pix_loss=norm_pix_loss,
            mixed=isinstance(self._objective.model, MixMAE),
        )


@partial(jax.jit, static_argnums=(3, 4))
def evaluate_reconstruction(
    params: Any,
    backscatter: jax.Array,
    seed: int,
    objective: PretrainObjective,
    bands: tuple[str, ...],
) -> tuple[dict[str, jax.Array], Panels]:
    """Return the diagnostics of patches without flips, and the panels of the picture."""
    settings = dataclasses.replace(objective.preprocessing, random_flip=False)
    model, key = objective.model, jax.random.key(seed)
    batch = preprocess(backscatter, key, settings)
    mask = random_mask(key, model.arch.mask_grid, objective.mask_ratio)
    result = reconstruct(model, params, batch, mask, norm_pix_loss=objective.norm_pix_loss)

    def to_db(images: jax.Array) -> jax.Array:
        db = destandardise(images, jnp.array(settings.mean), jnp.array(settings.std))
        return jnp.where(batch.valid, db, jnp.nan)

    measured = to_db(batch.images)
    restored = restored_images(result, model.arch.mask_unit, len(bands))
    seen = jnp.zeros((), bool)
    if model.predicted_units(mask) is not None:
        seen = ~masked_pixels(mask, measured.shape[1])
    panels = Panels(
        measured=measured,
        mixed=model.masked_input(measured, mask),
        reconstructed=jnp.where(seen, measured, to_db(restored)),
        weights=jnp.where(batch.valid, batch.weights, jnp.nan),
        mask=mask,
    )
    return diagnose(batch, result, settings, bands, model.arch.mask_unit), panels
