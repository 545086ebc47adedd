"""Sizes of a MixMAE model, published variants, counts of operations, and settings of heads."""

import dataclasses
from collections.abc import Iterator

from sar_mixmae_jax.utils.errors import InputError, look_up

MAX_SIZE = 2**16
"""Upper limit of every field of an `Architecture`."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes of a model; the defaults are those that the published models share.

    Attributes:
      embed_dim: int, channels of the first stage; each later stage doubles them.
      num_heads: attention heads per stage.
      depths: blocks per stage.
      window_sizes: side of the attention windows per stage, tokens.
      bands: int, input bands.
      image_size: int, side of the input, pixels.
      pretrain_image_size: int, side of the input that the position embedding was made for, pixels;
        None: `image_size`.
      patch_size: int, side of a token in the first stage, pixels.
      mlp_ratio: int, hidden width of an MLP over the width of its input.
      decoder_embed_dim: int, channels of the decoder.
      decoder_depth: int, blocks of the decoder.
      decoder_num_heads: int, attention heads of the decoder.
    """

    embed_dim: int
    num_heads: tuple[int, ...]
    depths: tuple[int, ...] = (2, 2, 18, 2)
    window_sizes: tuple[int, ...] = (8, 8, 8, 4)
    bands: int = 2
    image_size: int = 128
    pretrain_image_size: int | None = None
    patch_size: int = 4
    mlp_ratio: int = 4
    decoder_embed_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            sizes = value if isinstance(value, tuple) else (value,)
            if value is None:
                continue
            if not sizes or not all(isinstance(s, int) and 1 <= s <= MAX_SIZE for s in sizes):
                raise InputError(
                    f"{field.name} is {value}: expected whole numbers from 1 to {MAX_SIZE}"
                )
        if not len(self.depths) == len(self.num_heads) == len(self.window_sizes):
            raise InputError(
                f"depths {self.depths}, num_heads {self.num_heads} and window_sizes "
                f"{self.window_sizes} differ in length: give one value per stage"
            )
        if self.image_size % self.mask_unit:
            raise InputError(
                f"image_size is {self.image_size}: expected a multiple of the mask unit, "
                f"{self.mask_unit} px"
            )
        for stage, (heads, window) in enumerate(
            zip(self.num_heads, self.window_sizes, strict=True)
        ):
            tokens = self.image_size // (self.patch_size << stage)
            if tokens % min(window, tokens):
                raise InputError(
                    f"the window of stage {stage + 1} is {window} tokens: expected a divisor of "
                    f"its map of {tokens}x{tokens} tokens (image_size {self.image_size})"
                )
            _check_width(f"width of stage {stage + 1}", self.embed_dim << stage, heads)
        _check_width("decoder_embed_dim", self.decoder_embed_dim, self.decoder_num_heads)

    @property
    def mask_unit(self) -> int:
        """Side of a mask unit in pixels, the stride of the encoder: 32 with four stages."""
        return self.patch_size << (len(self.depths) - 1)

    @property
    def mask_grid(self) -> int:
        """Mask units along a side of the input: 4 at 128 px."""
        return self.image_size // self.mask_unit

    @property
    def num_blocks(self) -> int:
        """Blocks of the encoder, all stages together."""
        return sum(self.depths)

    @property
    def feature_width(self) -> int:
        """Channels of the last stage: the length of a token and of a feature vector."""
        return self.embed_dim << (len(self.depths) - 1)


def _check_width(what: str, width: int, heads: int) -> None:
    if width % heads or width % 4:
        raise InputError(
            f"{what} is {width}: expected a multiple of 4 and of its {heads} attention heads"
        )


VARIANTS = {
    "tiny": Architecture(
        embed_dim=32,
        num_heads=(1, 2, 4, 8),
        depths=(2, 2, 2, 2),
        decoder_embed_dim=128,
        decoder_depth=2,
        decoder_num_heads=4,
    ),
    "base": Architecture(embed_dim=128, num_heads=(4, 8, 16, 32)),
    "large": Architecture(embed_dim=192, num_heads=(6, 12, 24, 48)),
    "huge": Architecture(embed_dim=352, num_heads=(11, 22, 44, 88)),
}
"""The published variants, and `tiny` for laptops and tests."""


def make_architecture(variant: str, **changes: object) -> Architecture:
    """Return an entry of `VARIANTS` with some of its fields changed.

    Args:
      variant: name of the entry.
      **changes: fields of `Architecture`; a field that is None is not changed.

    Raises:
      InputError: the variant is unknown, or the changed sizes do not fit together.
    """
    changed = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(look_up(VARIANTS, variant, "variant"), **changed)  # type: ignore[arg-type]


def encoder_flops(arch: Architecture) -> int:
    """Return the operations of a forward pass of the encoder for one image."""
    side = arch.image_size // arch.patch_size
    total = 2 * side**2 * arch.patch_size**2 * arch.bands * arch.embed_dim
    for stage in range(1, len(arch.depths)):
        width, tokens = arch.embed_dim << stage, (side >> stage) ** 2
        total += 2 * tokens * (2 * width) * width  # merging: four narrow tokens to one wide
    return total + encoder_block_flops(arch)


def encoder_block_flops(arch: Architecture) -> int:
    """Return the operations of the encoder's blocks for one image."""
    return sum(_block_flops(*block, arch.mlp_ratio) for block in _encoder_blocks(arch))


def decoder_flops(arch: Architecture) -> int:
    """Return the operations of a forward pass of the decoder for one image, two sequences."""
    units, width = arch.mask_grid**2, arch.decoder_embed_dim
    embed = 2 * units * (arch.embed_dim << (len(arch.depths) - 1)) * width
    predict = 2 * units * width * arch.mask_unit**2 * arch.bands
    return embed + decoder_block_flops(arch) + 2 * predict


def decoder_block_flops(arch: Architecture) -> int:
    """Return the operations of the decoder's blocks for one image, two sequences."""
    return 2 * sum(_block_flops(*block, arch.mlp_ratio) for block in _decoder_blocks(arch))


def train_step_flops(arch: Architecture, batch: int, *, remat: str = "none") -> int:
    """Return the operations of forward and backward pass of pretraining on a batch.

    Args:
      arch: architecture of the model.
      batch: number of images.
      remat: what the backward pass recomputes, an entry of `layers.REMAT`.
    """
    recomputed = 0
    if remat == "full":
        recomputed = encoder_block_flops(arch) + decoder_block_flops(arch)
    elif remat == "dots":
        recomputed = sum(_attention_flops(*block) for block in _encoder_blocks(arch))
        recomputed += 2 * sum(_attention_flops(*block) for block in _decoder_blocks(arch))
    return batch * (3 * (encoder_flops(arch) + decoder_flops(arch)) + recomputed)


def _encoder_blocks(arch: Architecture) -> Iterator[tuple[int, int, int]]:
    """Yield (tokens, tokens that each attends to, width) of every block."""
    for stage, (depth, window) in enumerate(zip(arch.depths, arch.window_sizes, strict=True)):
        side, width = arch.image_size // (arch.patch_size << stage), arch.embed_dim << stage
        yield from depth * [(side**2, min(window, side) ** 2, width)]


def _decoder_blocks(arch: Architecture) -> Iterator[tuple[int, int, int]]:
    """Yield (tokens, tokens that each attends to, width) of every block, for one sequence."""
    units = arch.mask_grid**2
    yield from arch.decoder_depth * [(units, units, arch.decoder_embed_dim)]


def _block_flops(tokens: int, attended: int, width: int, mlp_ratio: int) -> int:
    """Return the operations of a block over `tokens`, each attending to `attended` tokens."""
    projections = 2 * tokens * width * width * (4 + 2 * mlp_ratio)
    return projections + _attention_flops(tokens, attended, width)


def _attention_flops(tokens: int, attended: int, width: int) -> int:
    """Return the operations of logits and of the sums of values."""
    return 2 * 2 * tokens * attended * width


@dataclasses.dataclass(frozen=True)
class KNNConfig:
    """Settings of a nearest-neighbour head.

    Attributes:
      records: int, records in the memory.
      neighbours: int, records that vote.
      temperature: float, divisor of the cosine similarity in the softmax of the vote weights.
      exclusive: bool, whether a record has exactly one class.
    """

    records: int
    neighbours: int
    temperature: float
    exclusive: bool
