"""The attention kernel, interpreted on CPU, against the plain form; and its program for CUDA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.fused_attention import RUN, fused_attention
from sar_mixmae_jax.models.fused_norm import fused_norm
from sar_mixmae_jax.models.layers import Kernels, attend
from sar_mixmae_jax.models.masking import random_mask
from sar_mixmae_jax.models.mixmae import MixMAE, init_params

interpreted = partial(fused_attention, interpret=True)
INTERPRETED = Kernels(interpreted, partial(fused_norm, interpret=True))


def compiled(function, *arguments):
    """Compile fast rather than well."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


def make_inputs(tokens, heads, width, sequences, windows, dtype=jnp.float32):
    """Arrays (query, key, value), bias, mask, and weights of the output's sum."""
    random = np.random.default_rng(tokens)
    qkv = random.normal(size=(sequences * tokens, 3 * heads * width))
    bias = random.normal(size=(heads, tokens, tokens)).astype(np.float32)
    mask = random.integers(0, 2, (windows, tokens)).astype(np.float32)
    weights = random.normal(size=(sequences * tokens, heads * width)).astype(np.float32)
    return jnp.asarray(qkv, dtype), bias, mask, weights


def output_and_gradients(attention, inputs, heads, *, use_bias=True, use_mask=True):
    """Output (rows, width), its gradient by query, key, value, and that by the bias."""
    qkv, bias, mask, weights = inputs

    def total(qkv, bias):
        out = attention(
            qkv,
            bias.shape[1],
            heads,
            bias if use_bias else None,
            mask if use_mask else None,
        )
        return (out * weights).sum(), out

    function = jax.value_and_grad(total, (0, 1), has_aux=True)
    (_, out), (by_qkv, by_bias) = compiled(function, qkv, bias)(qkv, bias)
    assert out.dtype == by_qkv.dtype == qkv.dtype
    by_query, by_key, by_value = jnp.split(by_qkv, 3, axis=1)
    arrays = {"out": out, "query": by_query, "key": by_key, "value": by_value}
    return {**arrays, "bias": by_bias} if use_bias else arrays


def deviations(found, expected):
    """Norm of the difference over the norm of the expected array, by name."""
    assert found.keys() == expected.keys()
    return {
        name: float(jnp.linalg.norm(found[name].astype(jnp.float32) - expected[name]))
        / float(jnp.linalg.norm(expected[name]))
        for name in expected
    }


@pytest.mark.parametrize(
    ("tokens", "heads", "width", "sequences", "windows"),
    [
        (16, 2, 32, RUN + 2, 2),  # the last stage of the published models; two runs, one short
        (64, 1, 32, 4, 4),
        (49, 3, 24, 4, 2),  # 7x7 windows
        (1, 2, 4, 2, 1),
        (9, 1, 96, 3, 3),
        (100, 1, 44, 2, 1),  # two blocks of queries, the second mostly padding
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(tokens, heads, width, sequences, windows):
    inputs = make_inputs(tokens, heads, width, sequences, windows)
    expected = output_and_gradients(attend, inputs, heads)
    found = output_and_gradients(interpreted, inputs, heads)
    if tokens == 1:  # a softmax over one key is constant
        assert not any(found.pop(name).any() for name in ("query", "key", "bias"))
        expected = {name: expected[name] for name in found}
    assert max(deviations(found, expected).values()) < 2e-6


@pytest.mark.parametrize(("use_bias", "use_mask"), [(False, False), (True, False), (False, True)])
def test_bias_and_mask_are_optional(use_bias, use_mask):
    inputs = make_inputs(16, 2, 8, 4, 2)
    both = [
        output_and_gradients(function, inputs, 2, use_bias=use_bias, use_mask=use_mask)
        for function in (interpreted, attend)
    ]
    assert max(deviations(*both).values()) < 2e-6


def test_bfloat16_is_as_close_to_float32_as_the_plain_form():
    rough = make_inputs(49, 2, 24, 4, 2, jnp.bfloat16)
    exact = output_and_gradients(attend, (rough[0].astype(jnp.float32), *rough[1:]), 2)
    plain = deviations(output_and_gradients(attend, rough, 2), exact)
    fused = deviations(output_and_gradients(interpreted, rough, 2), exact)
    assert all(1e-4 < fused[name] < 1.2 * plain[name] for name in exact)


def test_tokens_are_independent_of_those_of_another_mask_value():
    """Three windows in turn, of which the second has one token of another value."""
    qkv, bias, _, _ = make_inputs(16, 1, 8, 6, 3)
    mask = np.zeros((3, 16), np.float32)
    mask[1, 5] = 1
    before, after = (
        np.asarray(interpreted(values, 16, 1, bias, mask)).reshape(6, 16, -1)
        for values in (qkv, qkv.at[5::16].add(3.0))
    )
    changed = (before != after).any(-1)
    assert changed[[0, 2, 3, 5]].all()
    np.testing.assert_array_equal(changed[[1, 4]], np.arange(16)[None] == np.array([[5], [5]]))


def test_loss_and_gradient_of_a_whole_model():
    """Mixed images in four windows of 9 tokens, heads of 6 and 20 channels; both kernels."""
    arch = Architecture(
        embed_dim=12,
        num_heads=(2,),
        depths=(1,),
        window_sizes=(3,),
        image_size=24,
        decoder_embed_dim=20,
        decoder_depth=1,
        decoder_num_heads=1,
    )
    params = init_params(MixMAE(arch), jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, 24, 24, 2))
    mask = random_mask(jax.random.key(2), arch.mask_grid, 0.5)

    def evaluate(model):
        def loss(params):
            return jnp.square(model.apply({"params": params}, images, mask) - 1.0).mean()

        return compiled(jax.value_and_grad(loss), params)(params)

    expected, found = evaluate(MixMAE(arch)), evaluate(MixMAE(arch, kernels=INTERPRETED))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)
    table = expected[1]["encoder"]["stage_0_block_0"]["attn"]["bias_table"]
    assert float(jnp.abs(table).max()) > 1e-5  # not below the tolerance


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "heads", "width"),
    [(64, 4, 32), (16, 16, 32), (49, 3, 24), (4, 1, 8), (100, 2, 44), (256, 2, 96)],
)
def test_triton_accepts_both_kernels(lower_for_cuda, tokens, heads, width, dtype):
    """One kernel each way; no other operation of the program has the size of the logits."""
    windows, sequences = 4, 2 * RUN

    def gradient(qkv, bias, mask):
        def total(qkv, bias):
            return fused_attention(qkv, tokens, heads, bias, mask).astype(jnp.float32).sum()

        return jax.grad(total, (0, 1))(qkv, bias)

    program = lower_for_cuda(
        gradient,
        jax.ShapeDtypeStruct((sequences * tokens, 3 * heads * width), dtype),
        jax.ShapeDtypeStruct((heads, tokens, tokens), jnp.float32),
        jax.ShapeDtypeStruct((windows, tokens), jnp.float32),
    )
    assert program.count("xla.gpu.triton") == 2
    for prefix in (f"{sequences}x{heads}", f"{sequences // windows}x{windows}x{heads}"):
        assert f"tensor<{prefix}x{tokens}x{tokens}x" not in program
