"""Inference of the architecture of a PyTorch model from the names and shapes of its tensors.

Nothing else in a file is trusted, so that models of other tools convert too.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.models.architecture import VARIANTS, Architecture
from sar_mixmae_jax.models.mixmae import MixMAE, init_params
from sar_mixmae_jax.torch_interop.name_mapping import (
    POSITIONS,
    TOLERANCE,
    make_positions,
    torch_parameters,
)
from sar_mixmae_jax.training.source_checkpoint import encoder_param_shapes
from sar_mixmae_jax.utils.errors import InputError

PATCH_EMBEDDING, HEAD = "patch_embed.proj.weight", "head.weight"
LISTED_NAMES = 5
"""Names that a message lists."""

MAX_BLOCKS, MAX_IMAGE_SIZE = 256, 1024
"""Largest number of blocks in a stage, and largest input side in pixels, that are accepted."""

TASK_BY_OUTPUTS = {2: "flood", 19: "classification"}
"""Task of the published models by the number of outputs."""

Tensors = Mapping[str, np.ndarray]
"""Tensors by PyTorch's names."""


class InferredModel(NamedTuple):
    """Model in a file.

    Attributes:
      kind: "pretraining", "encoder", or the name of a task.
      variant: an entry of `VARIANTS`, or "custom".
      arch: its sizes.
      outputs: outputs of its head; 0 without a head.
    """

    kind: str
    variant: str
    arch: Architecture
    outputs: int

    @property
    def has_decoder(self) -> bool:
        """True for a pretraining model."""
        return self.kind == "pretraining"


def infer_model(
    tensors: Tensors,
    *,
    bands: tuple[str, ...] = BANDS,
    decoder_num_heads: int | None = None,
    encoder_only: bool = False,
    task: str | None = None,
    tolerance: float = TOLERANCE,
) -> InferredModel:
    """Infer kind, variant and architecture.

    Args:
      tensors: tensors of the file.
      bands: names of the inputs.
      decoder_num_heads: attention heads of the decoder, which no shape shows; None: those of the
        variant.
      encoder_only: ignore decoder and head.
      task: task of the head; None: by the number of its outputs.
      tolerance: largest difference of equal position embeddings.

    Raises:
      InputError: the tensors are not those of a MixMIM model, or of one without counterpart here.
    """
    width, patch_size = _patch_embedding(tensors, bands)
    depths, heads, windows = _stages(tensors)
    arch = Architecture(
        embed_dim=width,
        num_heads=heads,
        depths=depths,
        window_sizes=windows,
        bands=len(bands),
        patch_size=patch_size,
        mlp_ratio=_shape(tensors, "layers.0.blocks.0.mlp.fc1.weight", 2)[0] // width,
        image_size=_first_map_side(tensors) * patch_size,
    )
    pretrain_size = _pretrain_image_size(tensors, arch, tolerance)
    arch = dataclasses.replace(arch, pretrain_image_size=pretrain_size)
    has_decoder = any(name.startswith("decoder_") for name in tensors) and not encoder_only
    if has_decoder:
        arch = _with_decoder(tensors, arch, decoder_num_heads)
    headless = encoder_only or has_decoder or HEAD not in tensors
    outputs = 0 if headless else _shape(tensors, HEAD, 2)[0]
    kind = _kind(has_decoder, outputs, task)
    return InferredModel(kind, _variant(arch, has_decoder), arch, outputs)


def _kind(has_decoder: bool, outputs: int, task: str | None) -> str:
    if has_decoder:
        return "pretraining"
    if outputs and task:
        return task
    if outputs and outputs not in TASK_BY_OUTPUTS:
        raise InputError(
            f"the head has {outputs} outputs, expected 19 (BigEarthNet-19) or 2 (floods): "
            "--encoder_only converts the encoder without it"
        )
    return TASK_BY_OUTPUTS.get(outputs, "encoder")


def _patch_embedding(tensors: Tensors, bands: tuple[str, ...]) -> tuple[int, int]:
    """Return width and patch size.

    Raises:
      InputError: there is no patch embedding, or one of other channels than the bands.
    """
    if PATCH_EMBEDDING not in tensors:
        some = ", ".join(sorted(tensors)[:LISTED_NAMES])
        raise InputError(
            f"found no {PATCH_EMBEDDING} among {len(tensors)} tensors ({some}, …): expected a "
            "MixMIM model of SAR-W-MixMAE"
        )
    width, channels, rows, columns = _shape(tensors, PATCH_EMBEDDING, 4)
    if channels == 3 != len(bands):
        raise InputError(
            f"{PATCH_EMBEDDING} has three channels: filters of RGB models, such as the original "
            "MixMIM of ImageNet, do not apply to VH and VV; choose a two-band checkpoint of "
            "SAR-W-MixMAE, or pretrain with configs/pretrain.py"
        )
    if channels != len(bands) or rows != columns or rows & (rows - 1):
        raise InputError(
            f"{PATCH_EMBEDDING} is {(width, channels, rows, columns)}, expected (width, "
            f"{len(bands)}, 4, 4) for {' and '.join(bands)}: name the bands with --bands"
        )
    return width, rows


def _stages(tensors: Tensors) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return depths, attention heads and window sizes of the stages."""
    depths: dict[int, int] = {}
    tables: dict[int, tuple[int, ...]] = {}
    for name, tensor in tensors.items():
        if not (match := re.match(r"layers\.(\d{1,3})\.blocks\.(\d{1,3})\.", name)):
            continue
        stage, block = map(int, match.groups())
        depths[stage] = max(depths.get(stage, 0), block + 1)
        if name.endswith("relative_position_bias_table") and tensor.ndim == 2:
            tables[stage] = tensor.shape
    stages = range(len(depths))
    if not depths or set(depths) != {*stages} or set(tables) != {*stages}:
        raise InputError(
            f"found the stages {sorted(depths)}, with bias tables in {sorted(tables)}: expected "
            "layers.0 and so on, with relative_position_bias_table in each"
        )
    sides = [(round(tables[stage][0] ** 0.5) + 1) // 2 for stage in stages]
    wrong = [tables[i] for i in stages if tables[i][0] != (2 * sides[i] - 1) ** 2]
    if wrong:
        raise InputError(
            f"a relative_position_bias_table is {wrong[0]}: expected ((2 · window - 1)², heads)"
        )
    if max(depths.values()) > MAX_BLOCKS or max(sides) > MAX_IMAGE_SIZE:
        raise InputError(
            f"found {max(depths.values())} blocks in a stage and windows of {max(sides)} tokens: "
            f"expected at most {MAX_BLOCKS} and {MAX_IMAGE_SIZE}"
        )
    heads = tuple(tables[stage][1] for stage in stages)
    return tuple(depths[stage] for stage in stages), heads, tuple(sides)


def _first_map_side(tensors: Tensors) -> int:
    """Return the tokens along a side of the first stage."""
    if POSITIONS not in tensors:
        raise InputError(f"found no {POSITIONS}, from which the input size is inferred")
    tokens = _shape(tensors, POSITIONS, 3)[1]
    side = round(tokens**0.5)
    if side * side != tokens:
        raise InputError(f"{POSITIONS} has {tokens} tokens: expected a square number")
    if side > MAX_IMAGE_SIZE // 2:
        raise InputError(
            f"{POSITIONS} has {side} tokens a side: expected at most {MAX_IMAGE_SIZE // 2}: choose "
            "another file"
        )
    return side


def _pretrain_image_size(tensors: Tensors, arch: Architecture, tolerance: float) -> int | None:
    """Return the input size that the position embedding was made for; None: that of the model."""
    stored = tensors[POSITIONS]
    sizes = range(arch.mask_unit, 2 * arch.image_size + 1, arch.mask_unit)
    for candidate in (None, *(size for size in sizes if size != arch.image_size)):
        positions = make_positions(arch.image_size, candidate, arch)
        if positions.shape == stored.shape and np.allclose(
            positions, stored, rtol=0, atol=tolerance
        ):
            return candidate
    raise InputError(
        f"{POSITIONS} is not a sine-cosine embedding, original or resized: models with learned "
        "positions cannot be converted"
    )


def _with_decoder(tensors: Tensors, arch: Architecture, heads: int | None) -> Architecture:
    """Return the architecture with the sizes of the decoder.

    Raises:
      InputError: its number of heads cannot be inferred.
    """
    numbers = {
        int(match[1])
        for name in tensors
        if (match := re.match(r"decoder_blocks\.(\d{1,3})\.", name))
    }
    width, depth = _shape(tensors, "decoder_embed.weight", 2)[0], len(numbers)
    if heads is None:
        matches = [
            known
            for known in VARIANTS.values()
            if _same_encoder(known, arch) and known.decoder_embed_dim == width
        ]
        if not matches:
            raise InputError(
                f"cannot infer the attention heads of the decoder: the model (width "
                f"{arch.embed_dim}, depths {arch.depths}, decoder width {width}) matches none of "
                f"{', '.join(VARIANTS)}: give --decoder_num_heads"
            )
        heads = matches[0].decoder_num_heads
    return dataclasses.replace(
        arch, decoder_embed_dim=width, decoder_depth=depth, decoder_num_heads=heads
    )


def _variant(arch: Architecture, has_decoder: bool) -> str:
    decoder = ("decoder_embed_dim", "decoder_depth", "decoder_num_heads") if has_decoder else ()
    for name, known in VARIANTS.items():
        if _same_encoder(known, arch) and all(
            getattr(known, f) == getattr(arch, f) for f in decoder
        ):
            return name
    return "custom"


def _same_encoder(first: Architecture, second: Architecture) -> bool:
    """Return whether two encoders have equal sizes at any input size and for any bands."""
    fields = ("embed_dim", "depths", "num_heads", "mlp_ratio", "patch_size")
    return all(getattr(first, name) == getattr(second, name) for name in fields)


def _shape(tensors: Tensors, name: str, axes: int) -> tuple[int, ...]:
    if name not in tensors:
        raise InputError(f"found no {name}: expected a MixMIM model of SAR-W-MixMAE")
    shape = tensors[name].shape
    if len(shape) != axes or 0 in shape:
        raise InputError(f"{name} is {shape}: expected {axes} axes")
    return tuple(shape)


def expected_shapes(model: InferredModel) -> Any:
    """Return shapes and types of the parameters of a model: {"encoder", "decoder" or "head"}."""
    if model.has_decoder:
        return jax.eval_shape(partial(init_params, MixMAE(model.arch)), jax.random.key(0))
    parts = {"encoder": encoder_param_shapes(model.arch)}
    if model.outputs:
        kernel = jax.ShapeDtypeStruct((model.arch.feature_width, model.outputs), np.float32)
        bias = jax.ShapeDtypeStruct((model.outputs,), np.float32)
        parts["head"] = {"kernel": kernel, "bias": bias}
    return parts


def check_tensors(
    tensors: Tensors,
    shapes: Any,
    model: InferredModel,
    buffers: Iterable[str],
    *,
    encoder_only: bool,
) -> None:
    """Compare the tensors of a file with those of the inferred model.

    Args:
      tensors: tensors of the file.
      shapes: shapes of the parameters of the model.
      model: that was inferred.
      buffers: names of its buffers, which may be missing.
      encoder_only: whether decoder and head are ignored.

    Raises:
      InputError: names tensors that are missing, unexpected, of another shape, or not finite.
    """
    expected = torch_parameters(shapes, model.arch)
    names = {*tensors} - {*buffers}
    if encoder_only:
        names = {name for name in names if not name.startswith(("decoder_", "head."))}
        names -= {"mask_token"}
    missing, unexpected = expected.keys() - names, names - expected.keys()
    if missing or unexpected:
        advice = (
            "choose another file"
            if missing
            else "choose another file, or leave them out with --ignore_unexpected=NAME,NAME"
        )
        raise InputError(
            f"the tensors are not those of {model.variant} ({model.kind}): missing "
            f"{list_names(missing)}; unexpected {list_names(unexpected)}: {advice}"
        )
    for name, (_, shape) in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise InputError(
                f"{name} is {tensor.dtype}{tensor.shape}, expected float32{shape}: choose another "
                "file"
            )
        if not np.isfinite(tensor).all():
            raise InputError(f"{name} is not finite: the training diverged, choose another file")


def list_names(names: Iterable[str]) -> str:
    """Return the first of some names, and the number of the others."""
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED_NAMES} more" if len(ordered) > LISTED_NAMES else ""
    return (", ".join(name[:100] for name in ordered[:LISTED_NAMES]) or "none") + more
