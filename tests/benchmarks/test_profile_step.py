"""A step can be traced, and its time divided among its parts."""

from benchmarks import profile_step
from tests.shrink import small_config


def test_the_trace_holds_a_step(tmp_path):
    config = small_config(tmp_path)
    path, program = profile_step.trace_step(config, tmp_path / "profile")
    assert path.is_relative_to(tmp_path / "profile")
    milliseconds = profile_step.time_by_part(path, program)
    assert set(milliseconds) == set(profile_step.PARTS)
    assert all(value > 0 for value in milliseconds.values())
