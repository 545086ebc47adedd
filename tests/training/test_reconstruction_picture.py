"""The picture: there, whole, with nodata in its colour."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from sar_mixmae_jax.training.reconstruction_picture import (
    NODATA_COLOUR,
    Panels,
    draw_reconstruction,
)
from sar_mixmae_jax.utils import plotting


def panels(nodata: bool) -> Panels:
    rng = np.random.default_rng(0)
    images = rng.normal(-15, 4, (4, 2, 64, 64, 2))
    if nodata:
        images[:, 0, :20] = np.nan
    return Panels(*images, mask=np.eye(2))


def share_of_nodata_colour(path) -> float:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    colour = np.round(np.array(to_rgb(NODATA_COLOUR)) * 255).astype(int)
    return (np.abs(pixels - colour).max(-1) < 3).mean()


def test_nodata_shows_in_its_colour(tmp_path):
    for nodata in (False, True):
        path = tmp_path / f"{nodata}.png"
        draw_reconstruction(
            panels(nodata), ["a", "b"], ["VH", "VV"], path, title="t", norm_pix_loss=True
        )
    assert share_of_nodata_colour(tmp_path / "True.png") > 0.03
    assert share_of_nodata_colour(tmp_path / "False.png") < 0.005  # the legend
    assert sorted(path.name for path in tmp_path.iterdir()) == ["False.png", "True.png"]


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_text("the old one")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(plotting.FigureCanvasAgg, "print_png", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_reconstruction(
            panels(False), ["a", "b"], ["VH", "VV"], path, title="t", norm_pix_loss=False
        )
    assert path.read_text() == "the old one"


def test_a_patch_of_nodata_alone_can_be_drawn(tmp_path):
    empty = Panels(*np.full((4, 1, 64, 64, 2), np.nan), mask=np.eye(2))
    draw_reconstruction(
        empty, ["a"], ["VH", "VV"], tmp_path / "a.png", title="t", norm_pix_loss=True
    )
    assert share_of_nodata_colour(tmp_path / "a.png") > 0.3
