"""Measurements of an inspection: histograms, places, loss weights, statistics."""

from collections.abc import Callable

import numpy as np
import pytest
from rasterio._err import CPLE_AppDefinedError, CPLE_NotSupportedError

from sar_mixmae_jax.utils.errors import InputError
from tests.tfds_builders.test_inspect import mercator
from tfds_builders.band_statistics import BandMoments, dataset_statistics
from tfds_builders.inspect.inspection import weight_contrasts
from tfds_builders.inspect.survey import (
    Places,
    distances,
    locate,
    map_degrees,
    percentiles,
    survey,
)


def test_what_lies_outside_of_the_histogram_is_counted():
    values = np.array([-95.0, -90.0, 49.9, 50.0, 60.0, np.nan], np.float32).reshape(1, 6, 1)
    sums = survey([[{"id": b"a", "backscatter": values}]], 1, 0)
    assert sums.outside.tolist() == [[1, 2]]
    assert sums.histogram[0, [1, -2]].tolist() == [1, 1]
    assert (sums.lowest[0], sums.highest[0]) == (-95.0, 60.0)
    np.testing.assert_allclose(percentiles(sums, 0, (0, 100)), (-95.0, 60.0))
    nothing = survey([[{"id": b"a", "backscatter": values[:, 5:]}]], 1, 0)
    assert nothing.histogram.sum() == 0
    assert np.isnan(percentiles(nothing, 0, (50,))).all()


def test_centres_are_those_of_patches():
    row = {"id": b"", "backscatter": np.zeros((4, 6, 2)), "crs": b"EPSG:32633"}
    turned = {**row, "transform": np.array([1.0, 20.0, 5e5, 30.0, -4.0, 6e6])}
    unknown = {**row, "transform": np.full(6, np.nan)}
    within, beyond = (
        {**row, "transform": np.array([1.0, 0.0, x, 0.0, -4.0, 6e6])} for x in (9e8, 1e9)
    )
    sums = survey([[turned, unknown, within, beyond]], 2, 0)
    assert {crs: list(xy) for crs, xy in sums.centres.items()} == {
        "EPSG:32633": [5e5 + 3 + 40, 6e6 + 90 - 8, 9e8 + 3, 6e6 - 8]
    }
    assert sums.unplaced == 2


def test_places_are_found_by_crs():
    centres = {
        "EPSG:3857": [*mercator(24.5, 60.25), *mercator(-70.0, -33.0)],
        "EPSG:32633": [500_000.0, 0.0],  # where the central meridian crosses the equator
        "nonsense": [1.0, 2.0],
    }
    places = locate(centres, unplaced=2)
    np.testing.assert_allclose(places.degrees, [[24.5, 60.25], [-70, -33], [15, 0]], atol=1e-6)
    assert places.unknown == 3
    here = locate({"EPSG:4326": [179.5, 0.0]}, 0)
    there = locate({"EPSG:4326": [-179.5, 0.0, 90.0, 0.0]}, 0)
    np.testing.assert_allclose(distances(here, there), [np.radians(1.0) * 6371.0], rtol=1e-6)


def test_one_point_that_cannot_be_transformed_costs_no_other(monkeypatch):
    """Errors as of GDAL, which returns infinity after the first ones of a process."""
    calls = []

    def fail_beyond(crs, target, x, y):
        calls.append(len(x))
        if crs == "moon":
            raise CPLE_NotSupportedError(1, 6, "Cannot find coordinate operations")
        if max(x) > 1e7:
            raise CPLE_AppDefinedError(1, 1, "Point outside of projection domain")
        return np.divide(x, 1e5), np.divide(y, 1e5)

    monkeypatch.setattr("tfds_builders.inspect.survey.transform", fail_beyond)
    centres = {"EPSG:32633": [5e5, 0.0, 1e8, 0.0, 6e5, 1e5, 7e5, 2e5], "moon": [1.0, 2.0] * 4}
    places = locate(centres, unplaced=0)
    np.testing.assert_allclose(places.degrees, [[5, 0], [6, 1], [7, 2]])
    assert places.unknown == 5
    assert calls == [4, 2, 1, 1, 2, 4]


def test_longitudes_beyond_a_turn_are_unknown():
    assert locate({"EPSG:4326": [500.0, 10.0, 350.0, 10.0]}, 0).unknown == 1


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ([179.99, -179.98], [179.97], [179.99, 180.02, 179.97]),
        ([-179.99, -179.98, 179.999], [], [-179.99, -179.98, -180.001]),
        ([-10.0, 30.0], [25.5, 350.5], [-10.0, 30.0, 25.5, -9.5]),
        ([12.0], [], [12.0]),
    ],
)
def test_longitudes_do_not_jump_between_neighbours(train, test, expected):
    places = {
        split: Places(np.column_stack([longitudes, np.full(len(longitudes), -17.0)]), 0)
        for split, longitudes in (("train", train), ("test", test))
    }
    degrees = np.concatenate(list(map_degrees(places).values()))
    np.testing.assert_allclose(degrees[:, 0], expected, atol=1e-8)
    np.testing.assert_array_equal(degrees[:, 1], -17)


def weigh(power: np.ndarray) -> np.ndarray:
    return np.exp(1 - (power - power.min()) / (np.ptp(power) + 1e-6))


def test_weights_are_those_of_the_papers():
    mean, std = (-18.0, -11.0), (5.0, 4.0)
    rng = np.random.default_rng(0)
    patches = [rng.normal(-15, 4, (128, 128, 2)) for _ in range(5)]  # the size of the recipe
    contrasts = {(row.name, row.domain): row for row in weight_contrasts(patches, mean, std)}
    levels: dict[tuple[str, str], Callable] = {
        ("per_channel", "physical"): lambda patch, band: 10 ** (patch[..., band] / 10),
        ("shared_average", "physical"): lambda patch, band: (10 ** (patch / 10)).mean(-1),
        ("per_channel", "standardised"): lambda patch, band: (
            10 ** ((patch[..., band] - mean[band]) / std[band] / 10)
        ),
    }
    for key, power in levels.items():
        for band in (0, 1):
            cvs, ratios = [], []
            for patch in patches:
                weights, seen = weigh(power(patch, band)), patch[..., band]
                low, high = np.percentile(seen, (10, 90))
                cvs.append(weights.std() / weights.mean())
                ratios.append(weights[seen <= low].mean() / weights[seen >= high].mean())
            assert contrasts[key].cv[band] == pytest.approx(np.median(cvs), rel=1e-3)
            assert contrasts[key].dark_bright[band] == pytest.approx(np.median(ratios), rel=1e-3)
            assert contrasts[key].flat[band] == pytest.approx(np.mean(np.array(cvs) < 0.03))
    assert contrasts["none", "physical"].flat == [1.0, 1.0]


def test_statistics_of_nothing_are_refused():
    values = np.random.default_rng(0).normal(size=(8, 8, 2))
    values[..., 1] = np.nan
    with pytest.raises(InputError, match="band VV has the mean nan dB"):
        dataset_statistics(
            BandMoments.from_patches(values[None]), "global", ["train"], ["VH", "VV"]
        )
