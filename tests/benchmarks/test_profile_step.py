"""Every operation finds its place, and moments are shared; what this machine does, is no test."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import profile_step
from benchmarks.profile_step import Interval
from tests.shrink import small_config


def test_operations_find_their_part_and_kind():
    def function(x):
        with jax.named_scope("MixMAE/mlp"):
            x = x @ x
        with jax.named_scope("MixMAE/norm1"):
            return jnp.tanh(x).sum(0)

    program = jax.jit(function).lower(jnp.ones((64, 64))).compile().as_text()
    places = set(profile_step.classify(program).values())
    assert ("MLP", "products") in places
    assert ("LayerNorm", "reductions") in places


def test_a_moment_is_shared_by_what_runs_in_it():
    places = {"a": ("MLP", "products"), "b": ("LayerNorm", "moves")}
    shares = profile_step.add_up([Interval("a", 0, 3), Interval("b", 2, 4)], places)
    assert shares[places["a"]] == pytest.approx(2.5 / 4)
    assert shares[places["b"]] == pytest.approx(1.5 / 4)


def test_profiles_and_prints(tmp_path):
    shares = profile_step.profile(small_config(tmp_path))
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(share for (_, kind), share in shares.items() if kind == "products") > 0
    assert "| MLP |" in profile_step.table(shares)
