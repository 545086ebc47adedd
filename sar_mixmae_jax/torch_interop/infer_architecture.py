"""Which model a file holds, from its tensors alone; its own notes are a hint and not the truth."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sar_mixmae_jax.models.architecture import VARIANTS, Architecture
from sar_mixmae_jax.models.mixmae import MixMAE, init_params
from sar_mixmae_jax.torch_interop.name_mapping import (
    CLOSE,
    POSITIONS,
    make_positions,
    torch_parameters,
)
from sar_mixmae_jax.training import initialisation
from sar_mixmae_jax.utils.errors import InputError

PATCHES, HEAD = "patch_embed.proj.weight", "head.weight"
NAMED = 5
"""Names that a message lists."""

MOST_BLOCKS, LARGEST_IMAGE = 256, 1024
"""Blocks of a stage, and pixels of a side, beyond which nobody trains such a model."""

HEADS = {2: "flood", 19: "classification"}
"""The task of the published models by the number of outputs."""

Tensors = Mapping[str, np.ndarray]


class InferredModel(NamedTuple):
    """What a file holds.

    Attributes:
      kind: "pretraining", "encoder", or a task.
      variant: an entry of `VARIANTS`, or "custom".
      arch: of the model.
      outputs: of its head; 0 without one.
    """

    kind: str
    variant: str
    arch: Architecture
    outputs: int

    @property
    def has_decoder(self) -> bool:
        """Whether it is a pretraining model."""
        return self.kind == "pretraining"


def infer_model(
    tensors: Tensors,
    *,
    decoder_num_heads: int | None = None,
    encoder_only: bool = False,
    task: str | None = None,
    close: float = CLOSE,
) -> InferredModel:
    """Recognises a model.

    Args:
      tensors: by PyTorch's names.
      decoder_num_heads: attention heads of the decoder, not stored in tensors; None: those of the
        variant.
      encoder_only: leave decoder or head.
      task: of the head; None: by the number of its outputs.
      close: position embeddings that differ by less are the same.

    Raises:
      InputError: it is no model of this kind, or of one that this project does not have.
    """
    width, bands, patch_size = _patches(tensors)
    depths, heads, windows = _stages(tensors)
    arch = Architecture(
        embed_dim=width,
        num_heads=heads,
        depths=depths,
        window_sizes=windows,
        bands=bands,
        patch_size=patch_size,
        mlp_ratio=_shape(tensors, "layers.0.blocks.0.mlp.fc1.weight", 2)[0] // width,
        image_size=_side(tensors) * patch_size,
    )
    arch = dataclasses.replace(arch, pretrain_image_size=_position_size(tensors, arch, close))
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
    if outputs and outputs not in HEADS:
        raise InputError(
            f"the head has {outputs} outputs, expected 19 (BigEarthNet-19) or 2 (floods): "
            "--encoder_only takes the encoder without it"
        )
    return HEADS.get(outputs, "encoder")


def _patches(tensors: Tensors) -> tuple[int, int, int]:
    """Width, bands and patch size."""
    if PATCHES not in tensors:
        some = ", ".join(sorted(tensors)[:NAMED])
        raise InputError(
            f"there is no {PATCHES} among its {len(tensors)} tensors ({some}, …): expected a "
            "MixMIM model of SAR-W-MixMAE"
        )
    width, bands, rows, columns = _shape(tensors, PATCHES, 4)
    if bands == 3:
        raise InputError(
            "it takes three channels: it is a model of RGB images, such as the original MixMIM "
            "of ImageNet, whose filters mean nothing for VH and VV; choose a two-band checkpoint "
            "of SAR-W-MixMAE, or pretrain with configs/pretrain.py"
        )
    if bands != 2 or rows != columns or rows & (rows - 1):
        raise InputError(
            f"{PATCHES} is {(width, bands, rows, columns)}, expected (width, 2, 4, 4): VH and VV"
        )
    return width, bands, rows


def _stages(tensors: Tensors) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Depths, heads and windows of the stages."""
    depths: dict[int, int] = {}
    tables: dict[int, tuple[int, ...]] = {}
    for name, tensor in tensors.items():
        if not (found := re.match(r"layers\.(\d{1,3})\.blocks\.(\d{1,3})\.", name)):
            continue
        stage, block = map(int, found.groups())
        depths[stage] = max(depths.get(stage, 0), block + 1)
        if name.endswith("relative_position_bias_table") and tensor.ndim == 2:
            tables[stage] = tensor.shape
    stages = range(len(depths))
    if not depths or set(depths) != {*stages} or set(tables) != {*stages}:
        raise InputError(
            f"its stages are {sorted(depths)}, with bias tables in {sorted(tables)}: expected "
            "layers.0 and so on, with relative_position_bias_table in each"
        )
    sides = [(round(tables[stage][0] ** 0.5) + 1) // 2 for stage in stages]
    wrong = [tables[i] for i in stages if tables[i][0] != (2 * sides[i] - 1) ** 2]
    if wrong:
        raise InputError(
            f"a relative_position_bias_table is {wrong[0]}: expected ((2 · window - 1)², heads)"
        )
    if max(depths.values()) > MOST_BLOCKS or max(sides) > LARGEST_IMAGE:
        raise InputError(
            f"it has {max(depths.values())} blocks in a stage and windows of {max(sides)} tokens: "
            f"expected at most {MOST_BLOCKS} and {LARGEST_IMAGE}"
        )
    heads = tuple(tables[stage][1] for stage in stages)
    return tuple(depths[stage] for stage in stages), heads, tuple(sides)


def _side(tensors: Tensors) -> int:
    """Tokens along a side of the first stage."""
    if POSITIONS not in tensors:
        raise InputError(f"there is no {POSITIONS}, which alone says for which input size it is")
    tokens = _shape(tensors, POSITIONS, 3)[1]
    side = round(tokens**0.5)
    if side * side != tokens:
        raise InputError(f"{POSITIONS} has {tokens} tokens: expected those of a square")
    if side > LARGEST_IMAGE // 2:
        raise InputError(
            f"{POSITIONS} has {side} tokens a side: expected at most {LARGEST_IMAGE // 2}"
        )
    return side


def _position_size(tensors: Tensors, arch: Architecture, close: float) -> int | None:
    """The input size that the position embedding was made for; None: that of the model."""
    given = tensors[POSITIONS]
    others = range(arch.mask_unit, 2 * arch.image_size + 1, arch.mask_unit)
    for candidate in (None, *(other for other in others if other != arch.image_size)):
        made = make_positions(arch.image_size, candidate, arch)
        if made.shape == given.shape and np.allclose(made, given, rtol=0, atol=close):
            return candidate
    raise InputError(
        f"{POSITIONS} is no sine-cosine embedding, as it is or resized: a model with learnt "
        "positions has no counterpart here"
    )


def _with_decoder(tensors: Tensors, arch: Architecture, heads: int | None) -> Architecture:
    """The size with that of the decoder.

    Raises:
      InputError: nobody knows its number of heads.
    """
    numbers = {
        int(found[1])
        for name in tensors
        if (found := re.match(r"decoder_blocks\.(\d{1,3})\.", name))
    }
    width, depth = _shape(tensors, "decoder_embed.weight", 2)[0], len(numbers)
    if heads is None:
        twins = [
            one for one in VARIANTS.values() if _same(one, arch) and one.decoder_embed_dim == width
        ]
        if not twins:
            raise InputError(
                f"it matches none of {', '.join(VARIANTS)} (width {arch.embed_dim}, "
                f"depths {arch.depths}, decoder {width} wide), "
                "and its number of attention heads cannot be inferred: give --decoder_num_heads"
            )
        heads = twins[0].decoder_num_heads
    return dataclasses.replace(
        arch, decoder_embed_dim=width, decoder_depth=depth, decoder_num_heads=heads
    )


def _variant(arch: Architecture, has_decoder: bool) -> str:
    decoder = ("decoder_embed_dim", "decoder_depth", "decoder_num_heads") if has_decoder else ()
    for name, one in VARIANTS.items():
        if _same(one, arch) and all(getattr(one, f) == getattr(arch, f) for f in decoder):
            return name
    return "custom"


def _same(one: Architecture, other: Architecture) -> bool:
    """Whether two encoders are of one size, whatever the size of their input."""
    fields = ("embed_dim", "depths", "num_heads", "mlp_ratio", "patch_size", "bands")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def _shape(tensors: Tensors, name: str, axes: int) -> tuple[int, ...]:
    if name not in tensors:
        raise InputError(f"there is no {name}: expected a MixMIM model of SAR-W-MixMAE")
    shape = tensors[name].shape
    if len(shape) != axes or 0 in shape:
        raise InputError(f"{name} is {shape}: expected {axes} axes")
    return tuple(shape)


def expected_shapes(found: InferredModel) -> Any:
    """Shapes and types of the parameters of a model, by part."""
    if found.has_decoder:
        return jax.eval_shape(partial(init_params, MixMAE(found.arch)), jax.random.key(0))
    parts = {"encoder": initialisation.encoder_param_shapes(found.arch)}
    if found.outputs:
        kernel = jax.ShapeDtypeStruct((found.arch.feature_width, found.outputs), np.float32)
        bias = jax.ShapeDtypeStruct((found.outputs,), np.float32)
        parts["head"] = {"kernel": kernel, "bias": bias}
    return parts


def check_tensors(
    tensors: Mapping[str, np.ndarray],
    shapes: Any,
    found: InferredModel,
    known: Iterable[str],
    *,
    encoder_only: bool,
) -> None:
    """Compares the tensors of a file with those of the model that it seems to hold.

    Args:
      tensors: of the file.
      shapes: of the parameters of the model.
      found: the model.
      known: names of its buffers, which may be there.
      encoder_only: whether a decoder or a head is left aside.

    Raises:
      InputError: names what is missing, what is too much, or what has another shape.
    """
    wanted = torch_parameters(shapes, found.arch)
    parameters = {*tensors} - {*known}
    if encoder_only:
        parameters = {name for name in parameters if not name.startswith(("decoder_", "head."))}
        parameters -= {"mask_token"}
    missing, unexpected = wanted.keys() - parameters, parameters - wanted.keys()
    if missing or unexpected:
        raise InputError(
            f"its tensors are not those of {found.variant} ({found.kind}): missing "
            f"{list_names(missing)}; unexpected {list_names(unexpected)}: choose another file"
        )
    for name, (_, shape) in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise InputError(
                f"{name} is {tensor.dtype}{tensor.shape}, expected float32{shape}: choose another "
                "file"
            )
        if not np.isfinite(tensor).all():
            raise InputError(f"{name} is not finite: the training diverged, choose another file")


def list_names(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return (", ".join(name[:100] for name in every[:NAMED]) or "none") + more
