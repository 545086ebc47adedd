"""Python interface to the encoder of a checkpoint: backscatter in dB to features or tokens."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from sar_mixmae_jax.data.record_source import Record, Source
from sar_mixmae_jax.models.heads import Classifier
from sar_mixmae_jax.objectives.preprocess import RESIZE_MODES, Preprocessing, preprocess
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.checkpoint import is_checkpoint_path, select_step
from sar_mixmae_jax.training.config import compute_dtype
from sar_mixmae_jax.training.encoder_loading import load_encoder_params
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.source_checkpoint import (
    SourceCheckpoint,
    find_source_checkpoint,
    resize_architecture,
)
from sar_mixmae_jax.training.train_step import CacheablePartial
from sar_mixmae_jax.utils.decibel import MIN_DB_SHARE, PLAUSIBLE_DB
from sar_mixmae_jax.utils.errors import InputError, check_name
from sar_mixmae_jax.utils.files import local_path

BATCH_SIZE = 256
"""Images at a time, of all devices."""

Output = Literal["features", "tokens"]


@dataclasses.dataclass(frozen=True, repr=False)
class FrozenEncoder:
    """An encoder with fixed parameters.

    Attributes:
      source_checkpoint: the checkpoint that it was loaded from.
      model: the network.
      params: {"encoder": …}, on all devices.
      resize_mode: "resize" or "pad": conversion of an image to `image_size`.
    """

    source_checkpoint: SourceCheckpoint
    model: Classifier
    params: Any
    resize_mode: str

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.source_checkpoint.path}, "
            f"variant={self.source_checkpoint.metadata.model.variant!r}, bands={self.bands}, "
            f"image_size={self.image_size}, resize_mode={self.resize_mode!r}, width={self.width}, "
            f"grid={self.grid})"
        )

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands of the input, in their order, such as ("VH", "VV")."""
        return self.source_checkpoint.bands

    @property
    def image_size(self) -> int:
        """Side in pixels to which images are resized or padded."""
        return self.model.arch.image_size

    @property
    def width(self) -> int:
        """Length of a feature vector and of a token."""
        return self.model.arch.feature_width

    @property
    def grid(self) -> int:
        """Tokens along a side of the output of `tokens`."""
        return self.model.arch.mask_grid

    def embed(self, backscatter_db: ArrayLike, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Return one feature vector for each image, the mean of its tokens.

        Args:
          backscatter_db: (batch, row, column, band) backscatter in dB, bands in the order of
            `bands`, NaN for nodata. Standardisation and resizing are done here.
          batch_size: images at a time, of all devices.

        Returns:
          (batch, width) float32, equal to what `sar-mixmae embed` writes.

        Raises:
          InputError: the array has another shape, infinite values, or values that are not in dB.
        """
        return self._encode_array("features", backscatter_db, batch_size)

    def tokens(self, backscatter_db: ArrayLike, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Return the tokens of the last stage, one for each square of `image_size / grid` pixels.

        Args:
          backscatter_db: (batch, row, column, band), as for `embed`.
          batch_size: images at a time, of all devices.

        Returns:
          (batch, row, column, width) float32, `grid` rows and columns.

        Raises:
          InputError: as `embed`.
        """
        return self._encode_array("tokens", backscatter_db, batch_size)

    def _encode_array(self, output: Output, values: ArrayLike, batch_size: int) -> np.ndarray:
        images = check_backscatter(values, self.bands)
        if self.resize_mode == "resize" and images.shape[1] != images.shape[2]:
            raise InputError(
                f"backscatter_db has images of {images.shape[1]}x{images.shape[2]} px, expected "
                "square ones: cut them, or load the encoder with resize_mode='pad'"
            )
        if not len(images):
            grid = (self.grid, self.grid) if output == "tokens" else ()
            return np.zeros((0, *grid, self.width), np.float32)
        return self.encode(_ArraySource(images), output, batch_size=batch_size)[output]

    def encode(
        self,
        source: Source,
        output: Output,
        *,
        batch_size: int = BATCH_SIZE,
        unit: str = "dB",
        description: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Encode records that are read one by one.

        Args:
          source: records with a field `backscatter`, (row, column, band).
          output: "features" or "tokens".
          batch_size: records at a time, of all devices.
          unit: unit of the backscatter, an entry of `radiometry.TO_DB`.
          description: text beside a progress bar; None for no progress bar.

        Returns:
          {output: (records, …) float32}, and the other fields of the records.
        """
        settings = inference_preprocessing(
            self.source_checkpoint, self.image_size, self.resize_mode, unit
        )
        function = CacheablePartial(encode_batch, (self.model, settings, output))
        return BatchPredictor(function, batch_size)(self.params, source, description)


def inference_preprocessing(
    source: SourceCheckpoint, size: int, resize_mode: str, unit: str = "dB"
) -> Preprocessing:
    """Return the preprocessing of a checkpoint, speckle filter included, with nothing random.

    Args:
      source: the checkpoint.
      size: side of the input of the model, pixels.
      resize_mode: an entry of `preprocess.RESIZE_MODES`.
      unit: unit of the backscatter, an entry of `radiometry.TO_DB`.
    """
    return Preprocessing(
        size,
        source.statistics.mean,
        source.statistics.std,
        resize_mode=resize_mode,
        random_flip=False,
        unit=unit,
        speckle=source.input_filter,
    )


def load_encoder(
    path: str | Path,
    *,
    checkpoint: str | int | None = None,
    image_size: int | None = None,
    resize_mode: str | None = None,
    dtype: str = "auto",
) -> FrozenEncoder:
    """Load the encoder of a run or of a checkpoint.

    ```python
    encoder = sar_mixmae_jax.load_encoder("runs/base")
    features = encoder.embed(backscatter_db)  # (batch, row, column, band) in dB, NaN for nodata
    tokens = encoder.tokens(backscatter_db)
    ```

    Args:
      path: working directory of a run, of any task or converted from PyTorch; or a checkpoint in
        it, `WORKDIR/checkpoints/STEP`.
      checkpoint: checkpoint of a working directory, "best" by the metric of its run, "latest", or a
        step; None for the newest that can be read.
      image_size: side in pixels to which images are resized or padded, a multiple of the mask
        unit (32 px); the position embedding and the windows grow with it. None for that of the
        checkpoint.
      resize_mode: "resize" or "pad"; None for that of the run.
      dtype: dtype of the computation, "float32", "bfloat16", or "auto": bfloat16 on accelerators,
        float32 on CPU.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or the settings do not fit it.
    """
    path = local_path(path)
    if checkpoint is not None:
        if is_checkpoint_path(path):
            raise InputError(
                f"{path} is a checkpoint, and the choice {str(checkpoint)!r} is for the working "
                "directory of a run: give one of them"
            )
        path = select_step(path, str(checkpoint))
    return freeze_encoder(
        find_source_checkpoint(path), image_size=image_size, resize_mode=resize_mode, dtype=dtype
    )


def freeze_encoder(
    source_checkpoint: SourceCheckpoint,
    *,
    image_size: int | None = None,
    resize_mode: str | None = None,
    dtype: str = "auto",
) -> FrozenEncoder:
    """Load the encoder of a checkpoint whose metadata were read; see `load_encoder`."""
    arch = (
        source_checkpoint.arch
        if image_size is None
        else resize_architecture(source_checkpoint.arch, image_size)
    )
    if resize_mode is None:
        resize_mode = str(source_checkpoint.metadata.config.get("resize_mode", "resize"))
    check_name(RESIZE_MODES, resize_mode, "resize_mode")
    return FrozenEncoder(
        source_checkpoint,
        Classifier(arch, 1, compute_dtype(dtype)),
        replicate({"encoder": load_encoder_params(source_checkpoint, arch)}),
        resize_mode,
    )


def check_backscatter(values: ArrayLike, bands: tuple[str, ...]) -> np.ndarray:
    """Return images as float32 after checking that they are backscatter in dB.

    Args:
      values: (batch, row, column, band).
      bands: names of the expected bands.

    Raises:
      InputError: names what was found, what was expected, and a likely cause.
    """
    expected = f"expected (batch, row, column, band) with the bands {', '.join(bands)}"
    try:
        images = np.asarray(values)
        if images.dtype.kind not in "iuf":
            raise TypeError(f"dtype {images.dtype}")
        images = images.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"backscatter_db is no array of numbers ({error}): {expected}") from error
    count = len(bands)
    if images.ndim != 4 or images.shape[3] != count or 0 in images.shape[1:]:
        hint = ""
        if images.ndim == 3 and images.shape[2] == count:
            hint = "; a single image is backscatter_db[None]"
        elif images.ndim == 4 and images.shape[1] == count:
            hint = "; move the bands last: backscatter_db.transpose(0, 2, 3, 1)"
        raise InputError(f"backscatter_db has the shape {images.shape}: {expected}{hint}")
    if np.isinf(images).any():
        raise InputError(
            "backscatter_db has infinite values, such as 10 log10(0): expected dB, NaN for nodata"
        )
    nodata = np.isnan(images)
    empty = np.flatnonzero(nodata.all((1, 2, 3)))
    if empty.size:
        raise InputError(
            f"backscatter_db[{empty[0]}] is NaN in all pixels: expected a measurement in every "
            f"image; leave out {empty.size} of {len(images)} images"
        )
    measured = images[~nodata]
    if not measured.size:  # no image
        return images
    low, high = measured.min(), measured.max()
    if low < PLAUSIBLE_DB[0] or high > PLAUSIBLE_DB[1]:
        raise InputError(
            f"backscatter_db has values from {low:.4g} to {high:.4g}: expected dB within "
            f"{PLAUSIBLE_DB[0]:g} to {PLAUSIBLE_DB[1]:g}, NaN for nodata"
        )
    if (measured < -1).mean() <= MIN_DB_SHARE:
        raise InputError(
            f"backscatter_db has values from {low:.4g} to {high:.4g} and almost none below -1, as "
            "linear power has: expected dB, 10 log10(power), NaN for nodata"
        )
    return images


class _ArraySource:
    """Records of an array of images; see `Source`."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Record:
        return {"id": np.int64(index), "backscatter": self._images[index]}


def encode_batch(
    params: Any,
    batch: Mapping[str, jax.Array],
    settings: tuple[Classifier, Preprocessing, Output],
) -> dict[str, jax.Array]:
    """Return {output: (batch, …)} and the other fields of a batch; nothing is random."""
    model, preprocessing, output = settings
    images = preprocess(batch["backscatter"], jax.random.key(0), preprocessing).images
    encoded = model.apply({"params": params}, images, method=output)
    assert isinstance(encoded, jax.Array)
    return {output: encoded, **{name: batch[name] for name in batch if name != "backscatter"}}
