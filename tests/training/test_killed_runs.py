"""A run that is killed and started again ends bitwise where it would have ended."""

import signal

from tests.campaigns.kill import BEFORE, SAVE, Campaign, Interruption


def test_killed_twice_and_started_again_it_is_bitwise_the_same(built, tmp_path):
    """Before its first checkpoint and while one is written; the campaign has all other moments."""
    interruptions = [
        Interruption(signal.SIGKILL, BEFORE, step=0, delay=0.0),
        Interruption(signal.SIGKILL, SAVE, step=13, delay=0.0),
    ]
    trial = Campaign(tmp_path, built).run_trial("killed", interruptions, [{}])
    assert [hit.phase for hit in trial.hits] == [BEFORE, SAVE]
    assert not trial.problems
