"""A step can be traced; the trace is xprof's to read."""

import jax

from benchmarks import profile_step
from tests.shrink import small_config


def test_the_trace_holds_a_step(tmp_path):
    path = profile_step.trace_step(small_config(tmp_path), tmp_path / "profile")
    assert path.is_relative_to(tmp_path / "profile")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    assert any(
        "dot" in event.name for plane in planes for line in plane.lines for event in line.events
    )
