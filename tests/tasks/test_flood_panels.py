"""Pictures of pairs: choice, validation, scales, colours and numbers."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from sar_mixmae_jax.tasks import flood_figure, flood_panels
from sar_mixmae_jax.tasks.evaluation_report import write_report
from sar_mixmae_jax.tasks.flood_panels import PairPicture, choose_examples
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.utils.errors import InputError
from tests.tasks.test_evaluation_report import paired


def test_pairs_to_look_at():
    predictions = paired()
    chosen = choose_examples(predictions, count=2)
    assert chosen["false_alarms"] == [0]
    assert chosen["floods_missed"] == [5]
    assert chosen["floods_found"] == [23, 17]  # the surest, and not pair 22 of the same sequence
    assert len(chosen["dry_and_said_so"]) == 2
    assert all(predictions.labels[row] == 0 for row in chosen["dry_and_said_so"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda row: PairPicture(np.zeros((8, 8, 2)), np.zeros((8, 9, 2))), "pair23 has shapes"),
        (lambda row: PairPicture(np.zeros((8, 8)), np.zeros((8, 8))), "pair23 has shapes"),
        (
            lambda row: PairPicture(*np.zeros((2, 8, 8, 2)), water=np.zeros((4, 4), bool)),
            "pair23 has water",
        ),
        (
            lambda row: PairPicture(*np.zeros((2, 8, 8, 2)), evidence=np.full((2, 2), np.inf)),
            "pair23 has evidence",
        ),
        (
            lambda row: PairPicture(*np.zeros((2, 8, 8, 2)), water=np.full((8, 8), 3, np.uint8)),
            "pair23 has water with other values",
        ),
    ],
)
def test_pictures_that_cannot_be_drawn(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        write_report(paired(), tmp_path / "report", wrong, replicates=2)
    assert not list(tmp_path.iterdir())


def false_alarms(picture) -> Image.Image:
    """The figure of pairs that are called flooded and are not."""
    task, predictions = get_task("flood"), paired()
    figures = task.figures(predictions, task.metrics(predictions), {}, "title", picture)
    return Image.open(io.BytesIO(figures["pairs_false_alarms.png"]()))


def test_pictures_of_any_shape_and_of_nodata_alone():
    def odd(row: int) -> PairPicture:
        return PairPicture(*np.full((2, 30, 700, 2), np.nan))

    width, height = false_alarms(odd).size
    assert width > 2 * height


def test_pictures_of_one_band():
    def single(row: int) -> PairPicture:
        return PairPicture(*np.zeros((2, 32, 32, 1)), water=np.zeros((32, 32)), bands=("HH",))

    width, _ = false_alarms(single).size
    panels = 3 * flood_figure.PANEL + flood_figure.GAP + flood_figure.APART
    assert width == max(flood_figure.MIN_WIDTH, panels + 2 * flood_figure.MARGIN)


def test_pictures_are_averaged_in_power():
    db = np.full((512, 512), -20.0)
    db[::2, ::2] = 0.0
    db[:2, :2] = np.nan
    small = flood_panels.reduce_to_panel(db)
    assert small.shape == (256, 256)
    assert np.isnan(small[0, 0])
    np.testing.assert_allclose(small[1:], 10 * np.log10((1 + 3 * 0.01) / 4))


def test_scales_are_those_of_both_dates():
    before, after = np.full((16, 16, 2), -10.0), np.full((16, 16, 2), -30.0)
    scale = flood_panels.scales([PairPicture(before, after, evidence=np.array([[1.0, -7.0]]))])
    assert [(norm.vmin, norm.vmax) for norm in scale.bands] == [(-30.0, -10.0)] * 2
    assert (scale.evidence.vmin, scale.evidence.vmax) == (-7.0, 7.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2.34, "+2.3"), (-0.0123, "-0.012"), (-3.2e-5, "-3e-05"), (0.5, "+0.5"),
     (0.004, "+0.004"), (0.0009, "+9e-04"), (-12.6, "-13"), (123.4, "+123")],
)  # fmt: skip
def test_digits_of_evidence(value, text):
    assert flood_panels.format_evidence(value) == text


@pytest.mark.parametrize(
    ("strongest", "end"), [(0.0, 0.5), (1e-5, 0.5), (-0.501, 0.51), (3.81, 3.9), (-128, 130)]
)
def test_weak_evidence_looks_weak(strongest, end):
    dates = np.zeros((2, 8, 8, 2))
    scale = flood_panels.scales([PairPicture(*dates, evidence=np.array([[strongest]]))])
    assert (scale.evidence.vmin, scale.evidence.vmax) == (-end, end)


def test_water_of_both_dates_has_a_colour_of_its_own():
    def three(row: int) -> PairPicture:
        water = np.repeat(np.arange(3, dtype=np.uint8), 16)[:, None].repeat(48, 1)
        return PairPicture(*np.full((2, 48, 48, 2), -15.0), water=water)

    pixels = np.asarray(false_alarms(three).convert("RGB")).astype(int)
    for colour in ("DRY_COLOUR", "FLOOD_COLOUR", "WATER_COLOUR"):
        wanted = np.round(255 * np.array(to_rgb(getattr(flood_panels, colour)))).astype(int)
        panel = (np.abs(pixels - wanted).max(-1) < 3).sum()
        assert panel > 10_000, colour  # a third of a panel of 232 pixels, and a legend


def test_a_tile_without_a_measurement_is_hatched():
    axis = Figure().subplots()
    picture = PairPicture(*np.zeros((2, 8, 16, 2)), evidence=np.array([[1.0, np.nan]]))
    flood_panels.draw_evidence(axis, picture, Normalize(-1, 1))
    (tile,) = axis.patches
    assert (tile.get_hatch(), tile.get_xy(), tile.get_width()) == ("///", (8.0, 0.0), 8.0)
    assert [text.get_text() for text in axis.texts] == ["+1"]
    assert flood_panels.scales([picture]).evidence.vmax == 1.0


def test_captions_name_dates_orbits_and_what_the_headline_leaves_out():
    name = "7/S1A_IW_GRDH_1SDV_201901{}T030815_20190101T030840_025300_02CCCC_ABCD"
    predictions = SimpleNamespace(
        columns={
            "before": np.array([name.format("01")] * 2),
            "after": np.array([name.format("13"), name.format("25")]),
            "onset": np.array([True, False]),
            "seen_alike": np.array([True, False]),
        },
        probabilities=np.array([0.9, 0.2]),
        labels=np.array([1, 1]),
        classes=("dry", "flood"),
    )
    onset, later = (flood_figure.caption(predictions, row) for row in (0, 1))
    assert "2019-01-01 → 2019-01-13;  onset\n" in onset
    assert "2019-01-25;  flooded before, not in the headline;  from another orbit\n" in later
    assert onset.splitlines()[1:] == [f"{name.format('01')} →", name.format("13")]
