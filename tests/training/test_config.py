"""Arguments, batches and workdirs; the refusals on the command line are in test_main."""

import jax.numpy as jnp
import pytest

from configs import pretrain, synthetic
from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.config import (
    check_batch,
    check_numbers,
    compute_dtype,
    make_arch,
    masked_share,
    remat_policy,
)
from sar_mixmae_jax.utils.errors import InputError


def test_arguments_choose_model_data_and_weighting():
    config = pretrain.get_config("variant=large,dataset=mine/v2,weighting=none")
    assert config.model.variant == "large"
    assert config.dataset == "mine/v2"
    assert config.weighting.name == "none"
    assert synthetic.get_config().model.variant == "tiny"
    assert synthetic.get_config("variant=base").model.variant == "base"


def test_the_default_is_the_published_recipe():
    config = pretrain.get_config()
    assert make_arch(config) == VARIANTS["base"]
    assert Weighting(**config.weighting) == Weighting("per_channel", "standardised", 1.0)
    assert (config.norm_pix_loss, config.mask_ratio, config.resize_mode) == (True, 0.5, "resize")
    assert (config.epochs, config.schedule_epochs, config.warmup_epochs) == (64, 1024, 40)
    assert config.batch_size == 8 * 256


def test_the_released_code_cuts_the_number_of_mask_units():
    config = pretrain.get_config()
    for ratio, rounding, share in (
        (0.5, "nearest", 0.5),
        (0.5, "down", 8 / 16),
        (0.6, "nearest", 0.6),  # rounded where the mask is drawn
        (0.6, "down", 9 / 16),
    ):
        config.mask_ratio, config.mask_rounding = ratio, rounding
        assert masked_share(config, 16) == share
    config.mask_ratio = 0.06
    with pytest.raises(InputError, match=r"mask_ratio is 0\.06, which is 0\.96 of 16"):
        masked_share(config, 16)
    config.mask_rounding = "up"
    with pytest.raises(InputError, match="unknown mask_rounding 'up'"):
        masked_share(config, 16)


def test_malformed_arguments():
    with pytest.raises(InputError, match="found the config argument 'tiny', expected name=value"):
        pretrain.get_config("tiny")


def test_dtype():
    assert compute_dtype("auto") == jnp.float32  # the tests run on CPU
    assert compute_dtype("bfloat16") == jnp.bfloat16
    with pytest.raises(InputError, match="unknown dtype 'float16'"):
        compute_dtype("float16")


def test_remat_names_a_policy():
    config = pretrain.get_config()
    assert remat_policy(config) == "none"
    for given, name in (("dots", "dots"), ("True", "full"), ("False", "none")):
        config.remat = given
        assert remat_policy(config) == name
    config.remat = "all"
    with pytest.raises(InputError, match="unknown remat 'all'"):
        remat_policy(config)


@pytest.mark.parametrize(("batch", "devices"), [(256, 1), (2048, 8), (4, 2)])
def test_a_share_that_can_be_paired(batch, devices):
    config = pretrain.get_config()
    config.batch_size = batch
    check_batch(config, devices)


@pytest.mark.parametrize(("batch", "devices"), [(3, 1), (6, 2), (7, 2), (0, 1), (-2, 1)])
def test_a_share_that_cannot_be_paired(batch, devices):
    config = pretrain.get_config()
    config.batch_size = batch
    with pytest.raises(InputError, match=f"batch_size is {batch} on {devices} device"):
        check_batch(config, devices)


def test_one_band_is_a_model_of_one_band():
    config = pretrain.get_config("variant=tiny")
    config.bands = ("VV",)
    assert make_arch(config).bands == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mask_ratio", 1.5, r"mask_ratio is 1\.5: expected a number between 0 and 1"),
        ("epochs", 0.0, "expected a positive number"),
        ("log_every", 0, "log_every is 0: expected a whole number from 1"),
        ("total_steps", -1, "total_steps is -1"),
        ("optimizer.base_learning_rate", float("nan"), "base_learning_rate is nan"),
        ("mask_ratio", 0.001, "expected at least one unit from each"),
        ("bands", ("VV", "VV"), "expected at least one name, each once"),
        ("bands", ("HV,HH",), "or --config.bands="),
        ("bands", (1, 2), "expected at least one name"),
        ("optimizer.end_learning_rate", float("nan"), "end_learning_rate is nan"),
        ("seed", -1, "seed is -1"),
        ("warmup_epochs", 1024.0, "expected less than schedule_epochs"),
    ],
)
def test_numbers_outside_of_their_limits(field, value, message):
    config = pretrain.get_config()
    config.update_from_flattened_dict({field: value})

    def check() -> None:
        check_numbers(config)
        make_arch(config)

    with pytest.raises(InputError, match=message):
        check()
