"""The folder of a run: its configuration, and one process at a time."""

import pytest

from configs import pretrain
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.workdir import claim


def test_a_run_may_be_made_longer_but_not_another(tmp_path):
    config = pretrain.get_config()
    with claim(config, tmp_path / "run"):
        pass
    config.epochs = 128.0
    with claim(config, tmp_path / "run"):
        pass
    before = (tmp_path / "run/config.json").read_text()
    config.optimizer.b2 = 0.99
    with (
        pytest.raises(InputError, match=r"optimizer\.b2 was 0\.95 and is now 0\.99"),
        claim(config, tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "run/config.json").read_text() == before


def test_one_run_at_a_time(tmp_path):
    config = pretrain.get_config()
    with (
        claim(config, tmp_path),
        pytest.raises(InputError, match="in use by another process"),
        claim(config, tmp_path),
    ):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_a_broken_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with (
        pytest.raises(InputError, match=r"config\.json cannot be read"),
        claim(pretrain.get_config(), tmp_path),
    ):
        pass


def test_checkpoints_without_a_configuration_are_not_continued(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with (
        pytest.raises(InputError, match=r"checkpoints but no config\.json"),
        claim(pretrain.get_config(), tmp_path),
    ):
        pass


def test_a_workdir_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(InputError, match="cannot be written"),
            claim(pretrain.get_config(), workdir),
        ):
            pass
