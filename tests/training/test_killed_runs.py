"""A run that is killed and started again ends bitwise where it would have ended."""

import signal

from tests.campaigns.kill import BEFORE, BETWEEN, SAVE, Campaign, Interruption


def test_killed_three_times_and_started_again_it_is_bitwise_the_same(built, tmp_path):
    """Kill it before its first checkpoint, between two, and while one is written."""
    interruptions = [
        Interruption(signal.SIGKILL, BEFORE, step=0, delay=0.0),
        Interruption(signal.SIGKILL, BETWEEN, step=7, delay=0.0),
        Interruption(signal.SIGKILL, SAVE, step=13, delay=0.0),
    ]
    trial = Campaign(tmp_path, built).run_trial("killed", interruptions, [{}])
    assert [hit.phase for hit in trial.hits] == [BEFORE, BETWEEN, SAVE]
    assert not trial.problems
