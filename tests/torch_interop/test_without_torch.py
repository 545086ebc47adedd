"""Without PyTorch: one line that says what to install."""

import sys
from pathlib import Path

import pytest

from sar_mixmae_jax.torch_interop import tensor_files
from sar_mixmae_jax.utils.errors import InputError


@pytest.mark.parametrize(
    ("suffix", "module", "name"),
    [(".pth", "torch", "PyTorch"), (".safetensors", "safetensors", "safetensors")],
)
def test_what_is_missing_is_named(monkeypatch, tmp_path, suffix, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(InputError, match=rf"{name} is needed .* pip install \"sar-mixmae-jax"):
        tensor_files.read_tensor_file(path)
    with pytest.raises(InputError, match=f"{name} is needed"):
        tensor_files.write_tensor_file(path, {}, "")
    assert path.read_bytes() == b"anything"
    assert [*tmp_path.iterdir()] == [Path(path)]
