"""The flags, and the configurations that they make."""

from absl import flags
from ml_collections import ConfigDict

from configs import pretrain

VARIANT = flags.DEFINE_string("variant", "tiny", "size of the model, of mixmae.VARIANTS")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "patches in a batch, of all devices", 1)
DTYPE = flags.DEFINE_string("dtype", "auto", "float32, bfloat16, or auto")


def config_of_flags() -> ConfigDict:
    """The published recipe with the variant, batch and dtype that the flags say."""
    config = pretrain.get_config(f"variant={VARIANT.value}")
    config.batch_size, config.dtype = BATCH_SIZE.value, DTYPE.value
    return config
