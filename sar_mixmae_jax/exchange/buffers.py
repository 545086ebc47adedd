"""What PyTorch's models store besides what is learnt: position embeddings, indices of windows."""

from collections.abc import Mapping

import numpy as np

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.layers import sincos_position_embedding
from sar_mixmae_jax.mixmae import Architecture
from sar_mixmae_jax.resizing import bicubic
from sar_mixmae_jax.swin import relative_position_index

POSITIONS, DECODER_POSITIONS = "absolute_pos_embed", "decoder_pos_embed"
INDEX = "relative_position_index"
KEPT = "torch_buffers.npz"
"""In a workdir: buffers of the file it was converted from that are not equal to ours bit by bit."""

CLOSE, CLOSE_IN_HALF = 1e-5, 1e-2
"""Position embeddings that differ by less are the same, computed elsewhere or stored in 16 bits."""


def is_buffer(name: str) -> bool:
    """Whether a tensor is none that is learnt."""
    return name in (POSITIONS, DECODER_POSITIONS) or name.endswith(f".{INDEX}")


def buffers(size: Architecture, *, decoder: bool) -> dict[str, np.ndarray]:
    """The buffers of a model by PyTorch's names.

    Args:
      size: of the model.
      decoder: whether it has one.
    """
    made = {POSITIONS: positions(size.image_size, size.position_size, size)}
    if decoder:
        embedding = sincos_position_embedding(size.grid, size.decoder_width)
        made[DECODER_POSITIONS] = embedding.reshape(1, -1, size.decoder_width)
    for stage, (depth, window) in enumerate(zip(size.depths, size.windows, strict=True)):
        tokens = size.image_size // (size.patch_size << stage)
        for block in range(depth):
            index = relative_position_index(min(window, tokens)).astype(np.int64)
            made[f"layers.{stage}.blocks.{block}.attn.{INDEX}"] = index
    return made


def positions(image_size: int, position_size: int | None, size: Architecture) -> np.ndarray:
    """(1, tokens, width) position embedding, resized if it was made for another input size."""
    made_for = (position_size or image_size) // size.patch_size
    embedding = sincos_position_embedding(made_for, size.width)
    if position_size not in (None, image_size):
        embedding = bicubic(embedding, image_size // size.patch_size)
    return embedding.reshape(1, -1, size.width)


def different(
    tensors: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray], close: float = CLOSE
) -> dict[str, np.ndarray]:
    """The buffers of a file that are the same as ours but not bit by bit; they go back as they are.

    A file need not have all of them; what was rounded to 16 bits does not go back.

    Raises:
      InputError: a buffer is another one than this project's models have.
    """
    found = {}
    for name, ours in made.items():
        theirs = tensors.get(name)
        if theirs is None:
            continue
        if theirs.shape != ours.shape:
            raise InputError(f"{name} is {theirs.shape}, expected {ours.shape}")
        if not np.allclose(theirs, ours, rtol=0, atol=close):
            raise InputError(
                f"{name} is another one than the fixed one of MixMAE: a model with learnt or "
                "changed positions has no counterpart here"
            )
        if close == CLOSE and not np.array_equal(theirs, ours):
            found[name] = np.array(theirs)
    return found
