"""Choice between plain and fused attention, on descriptions of devices that are not here."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from configs import finetune, pretrain
from sar_mixmae_jax.models.architecture import VARIANTS, Architecture
from sar_mixmae_jax.models.fused_attention import fused_attention
from sar_mixmae_jax.models.layers import attend
from sar_mixmae_jax.training import attention_choice
from sar_mixmae_jax.training.attention_choice import attention_sizes, select_attention
from sar_mixmae_jax.training.config import make_arch
from sar_mixmae_jax.utils.errors import InputError
from tests.training.test_resume_check import BEFORE, changed, check

ARCH = Architecture(
    embed_dim=8,
    num_heads=(2,),
    depths=(1,),
    window_sizes=(2,),
    image_size=8,
    decoder_embed_dim=12,
    decoder_num_heads=3,
)
A100 = SimpleNamespace(platform="gpu", device_kind="NVIDIA A100", compute_capability="8.0")
interpreted = partial(fused_attention, interpret=True)


def choose(name: str):
    config = pretrain.get_config()
    config.model.attention, config.dtype = name, "bfloat16"
    return select_attention(config, ARCH, decoder=True)


@pytest.fixture
def pretend(monkeypatch):
    """Set the description of the device, and the kernel."""

    def set_device(device, kernel=interpreted):
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        monkeypatch.setattr(attention_choice, "_import_kernel", lambda: kernel)

    return set_device


def fails_to_compile(*arguments):
    raise NotImplementedError("unsupported shape\nand more")


def forgets_the_mask(qkv, tokens, heads, bias, mask):
    return attend(qkv, tokens, heads, bias)


def has_a_nan_gradient(qkv, *arguments):
    return attend(qkv, *arguments) + 0 * jnp.sqrt(0 * qkv[:1, :1])


@pytest.mark.parametrize("name", ["auto", "fused"])
def test_fused_where_it_works(pretend, capsys, name):
    pretend(A100)
    assert choose(name) is interpreted
    assert capsys.readouterr().out == "attention: fused\n"


OBSTACLES = [
    (SimpleNamespace(platform="cpu", device_kind="cpu"), None, "the device is cpu"),
    (SimpleNamespace(platform="tpu", device_kind="TPU v5e"), None, "the device is TPU v5e"),
    (
        SimpleNamespace(platform="gpu", device_kind="MI300X", compute_capability="gfx942"),
        None,
        "the device is MI300X, the kernel is for NVIDIA GPUs",
    ),
    (
        SimpleNamespace(platform="gpu", device_kind="Tesla V100", compute_capability="7.0"),
        None,
        "Tesla V100 has compute capability 7.0, the kernel needs 8.0",
    ),
    (A100, fails_to_compile, "the kernel does not compile: NotImplementedError: unsupported shape"),
    (A100, forgets_the_mask, "the kernel for 4 tokens and heads of 4 deviates by"),
    (A100, has_a_nan_gradient, "deviates by nan from the plain form"),
]


@pytest.mark.parametrize(("device", "kernel", "reason"), OBSTACLES)
def test_plain_elsewhere(pretend, capsys, device, kernel, reason):
    pretend(device, kernel)
    assert choose("auto") is attend
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("attention: plain (")
    assert reason in line
    with pytest.raises(InputError, match=r"model\.attention is 'fused', which cannot run") as error:
        choose("fused")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_auto_is_plain_where_the_kernel_does_not_pay(pretend, capsys):
    pretend(A100)
    config = pretrain.get_config()
    config.dtype = "float32"
    assert select_attention(config, ARCH) is attend
    config.dtype = "bfloat16"
    large = dataclasses.replace(ARCH, image_size=64, window_sizes=(16,))
    assert select_attention(config, large) is attend
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "attention: plain (in float32 the kernel has no tensor cores)"
    assert lines[1] == "attention: plain (windows of 256 tokens: the kernel is for up to 128)"


def test_a_pallas_that_cannot_be_imported(monkeypatch):
    def fail():
        raise ImportError("cannot import name 'triton'")

    monkeypatch.setattr(jax, "local_devices", lambda: [A100])
    monkeypatch.setattr(attention_choice, "_import_kernel", fail)
    with pytest.raises(InputError, match="cannot import name 'triton'"):
        choose("fused")


def test_plain_tries_nothing(pretend, capsys):
    pretend(A100, fails_to_compile)
    assert choose("plain") is attend
    assert capsys.readouterr().out == "attention: plain\n"


def test_unknown_name():
    with pytest.raises(InputError, match=r"unknown model\.attention 'flash'"):
        choose("flash")


def test_every_size_of_a_model_is_tried():
    assert attention_sizes(VARIANTS["base"], decoder=True) == {(64, 32): 16, (16, 32): 16}
    assert attention_sizes(ARCH, decoder=False) == {(4, 4): 2}
    wider = dataclasses.replace(ARCH, decoder_embed_dim=24, decoder_num_heads=1)
    assert attention_sizes(wider, decoder=True) == {(4, 4): 2, (4, 24): 1}


def test_the_architecture_is_that_without_the_field():
    config = pretrain.get_config()
    assert make_arch(config) == VARIANTS["base"]
    assert config.model.attention == finetune.get_config().model.attention == "auto"


def test_it_may_change_between_starts_of_a_run():
    (note,) = check(BEFORE, changed(BEFORE, "config.model.attention", "fused"))
    assert note.startswith("model.attention was 'auto' and is now 'fused': results")


def test_a_run_without_the_field_was_plain():
    old = changed(BEFORE, "config.model.attention", None)
    del old["config"]["model"]["attention"]
    assert check(old, changed(BEFORE, "config.model.attention", "plain")) == []
