"""A look at the model from outside the train step: diagnostics and pictures of fixed patches.

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
from sar_mixmae_jax.models.masking import mix_tokens, random_mask
from sar_mixmae_jax.objectives.diagnostics import NEARLY_CONSTANT, diagnose, nearly_constant
from sar_mixmae_jax.objectives.preprocess import preprocess
from sar_mixmae_jax.objectives.radiometry import destandardise
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, reconstruct, restored_images
from sar_mixmae_jax.training import reconstruction_picture
from sar_mixmae_jax.training.callbacks import EvalResult
from sar_mixmae_jax.training.reconstruction_picture import Panels
from sar_mixmae_jax.training.sharding import fetch_replicated


class ReconstructionEvaluator:
    """Looks at the first patches of a dataset with the model's parameters; a `journal.Watcher`."""

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
        """Reads the patches.

        Args:
          objective: what the model is trained for.
          patches: the dataset.
          count: how many patches to look at, made even; fewer where there are fewer.
          drawn: how many of them to draw.
          seed: of the mask.
        """
        count = max(2, min(count, len(patches.source)) // 2 * 2)
        records = [patches.source[index] for index in range(count)]
        self._backscatter = jnp.stack([record["backscatter"] for record in records])
        self._ids = [record["id"].decode() for record in records[:drawn]]
        self._objective, self._bands = objective, patches.bands
        self._seed = np.uint32(seed % 2**32)  # an argument of the program: no other for another

    def look(self, params: Any) -> EvalResult:
        """Looks at the patches with the given parameters."""
        scalars, panels = self.inspect(params)
        headline = f"{100 * scalars['explained_variance']:.1f} % of the weighted variance explained"
        return EvalResult(scalars, headline, partial(self.draw, panels))

    def inspect(self, params: Any) -> tuple[dict[str, float], Panels]:
        """The diagnostics, and what there is to draw."""
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
        """Warns where the weighting hardly differs from none."""
        weighting = self._objective.preprocessing.weighting
        if weighting.name == "none":
            return
        flat = nearly_constant(scalars, self._bands)
        if flat:
            variations = ", ".join(f"{scalars[f'weight_cv/{band}']:.3f} in {band}" for band in flat)
            logging.warning(
                "weighting %s is nearly constant: the median coefficient of variation of its "
                "weights is %s, below %.2f, which trains like weighting=none; see docs/method.md "
                "for robust forms",
                weighting.name,
                variations,
                NEARLY_CONSTANT,
            )

    def draw(self, panels: Panels, path: Path, title: str) -> None:
        """Writes the picture."""
        norm_pix_loss = self._objective.norm_pix_loss
        reconstruction_picture.draw_reconstruction(
            panels, self._ids, self._bands, path, title=title, norm_pix_loss=norm_pix_loss
        )


@partial(jax.jit, static_argnums=(3, 4))
def evaluate_reconstruction(
    params: Any,
    backscatter: jax.Array,
    seed: int,
    objective: PretrainObjective,
    bands: tuple[str, ...],
) -> tuple[dict[str, jax.Array], Panels]:
    """The diagnostics of patches as they lie, and what there is to draw of them."""
    settings = dataclasses.replace(objective.preprocessing, random_flip=False)
    model, key = objective.model, jax.random.key(seed)
    batch = preprocess(backscatter, key, settings)
    mask = random_mask(key, model.arch.mask_grid, objective.mask_ratio)
    result = reconstruct(model, params, batch, mask, norm_pix_loss=objective.norm_pix_loss)

    def to_db(images: jax.Array) -> jax.Array:
        db = destandardise(images, jnp.array(settings.mean), jnp.array(settings.std))
        return jnp.where(batch.valid, db, jnp.nan)

    measured = to_db(batch.images)
    panels = Panels(
        measured=measured,
        mixed=mix_tokens(measured, mask),
        reconstructed=to_db(restored_images(result, model.arch.mask_unit, len(bands))),
        weights=jnp.where(batch.valid, batch.weights, jnp.nan),
        mask=mask,
    )
    return diagnose(batch, result, settings, bands, model.arch.mask_unit), panels
