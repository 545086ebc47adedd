"""Files of mapped scenes, with functions of pixels in place of a model."""

import dataclasses
import io
import json
import struct
import warnings
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio._err import CPLE_AppDefinedError
from rasterio.crs import CRS

from sar_mixmae_jax.data.metadata import DatasetDescription
from sar_mixmae_jax.inference.geoparquet import common_crs, footprints, write_geoparquet
from sar_mixmae_jax.inference.map_model import MapModel, check_windows, trained_window
from sar_mixmae_jax.inference.principal_components import principal_components
from sar_mixmae_jax.inference.quicklook import QuicklookLayer, draw_quicklook, pixel_size, scale_bar
from sar_mixmae_jax.inference.raster_output import (
    Grid,
    RasterBands,
    report_raster_errors,
    write_array,
)
from sar_mixmae_jax.inference.raster_overviews import halve
from sar_mixmae_jax.inference.scene_pipeline import MapScene, WindowPredictor
from sar_mixmae_jax.inference.scene_products import (
    MapSettings,
    _window_layers,
    map_scene,
    remove_partial_files,
)
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.plotting import class_colours
from tests.descriptions import describe
from tests.launch import file_size_limit

TAGS = {"MODEL": "m"}
UTM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_500_000.0)


def scene_of(db, crs="EPSG:32633", transform=UTM, dates=1):
    def read(first, last):
        return db[first:last]

    times = ("2021-03-04T05:06:07",) * dates
    return MapScene("folder/scene", Grid(db.shape[:2], crs, transform), times, (read,) * dates)


def model_of(kind, function, window=32, cell=1, classes=("land", "water"), channels=None):
    channels = channels or (classes[1:] if len(classes) == 2 else classes)
    predictor = WindowPredictor(window, cell, channels, 4, lambda d: function(d[0]))
    return MapModel(
        kind,
        predictor,
        8 if cell == 1 else 0,
        ("VH", "VV"),
        (),
        classes,
        TAGS,
    )


def backscatter(rows, columns):
    db = np.random.default_rng(0).normal(-15, 3, (rows, columns, 2)).astype(np.float32)
    db[5:9, 7:20] = np.nan
    return db


def dark(windows):
    """Probability of water, the more probable, the darker VH is."""
    return 1 / (1 + np.exp(windows[..., :1] + 15))


def test_classes_and_probabilities_lie_where_the_pixels_do(tmp_path):
    db = backscatter(600, 530)
    paths = map_scene(
        scene_of(db), model_of("pixels", dark), tmp_path / "sub" / "scene", MapSettings(0.7)
    )
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == sorted(p.name for p in paths)
    expected = 1 / (1 + np.exp(db[..., 0].astype(np.float64) + 15))
    missing = np.isnan(expected)
    with rasterio.open(paths[0]) as raster:
        assert raster.crs == CRS.from_epsg(32633)
        assert tuple(raster.transform)[:6] == UTM
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.overviews(1) == [2]
        assert raster.descriptions == ("probability of water",)
        assert raster.tags()["MODEL"] == "m"
        stored = raster.read(1, masked=True)
        np.testing.assert_array_equal(stored.mask, missing)
        values = stored.data[~missing] * raster.scales[0] + raster.offsets[0]
        np.testing.assert_allclose(values, expected[~missing], atol=0.5 / 250 + 1e-6)
        row, column = raster.index(500_000 + 10 * 40.5, 5_500_000 - 10 * 100.5)
        assert (row, column) == (100, 40)
        whole = raster.read()
    with rasterio.open(paths[0], overview_level=0) as raster:
        np.testing.assert_array_equal(raster.read(), halve(whole, 255, "mean"))
    with rasterio.open(paths[1]) as raster:
        assert raster.nodata == 255
        assert raster.tags()["THRESHOLD"] == "probability of water at least 0.7"
        classes = raster.read(1)
        assert raster.colormap(1)[1][:3] == (31, 111, 180)
    clear = ~missing & (np.abs(expected - 0.7) > 1e-5)
    np.testing.assert_array_equal(classes[clear], expected[clear] >= 0.7)
    np.testing.assert_array_equal(classes == 255, missing)
    assert paths[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("nodata", [255, np.nan])
def test_four_pixels_become_their_mean_or_most_frequent_value(nodata):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (2, 7, 10)).astype("float32" if np.isnan(nodata) else "uint8")
    values[:, :5, 3:7] = nodata
    mean, mode = (halve(values, nodata, name) for name in ("mean", "mode"))
    assert mean.shape == mode.shape == (2, 4, 5)
    for band, row, column in np.ndindex(mean.shape):
        square = values[band, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel()
        known = square[~np.isnan(square) & (square != nodata)]
        expected, modes = nodata, [nodata]
        if len(known):
            expected = known.mean() if np.isnan(nodata) else np.rint(known.mean())
            counts = np.bincount(known.astype(int))
            modes = np.flatnonzero(counts == counts.max())
        np.testing.assert_allclose(mean[band, row, column], expected)
        assert any(np.array_equal(mode[band, row, column], one, equal_nan=True) for one in modes)


def test_a_scene_without_a_place_has_a_map_without_a_place(tmp_path):
    db = backscatter(40, 50)
    scene = scene_of(db, crs="", transform=(np.nan,) * 6)

    def three(windows):
        water = dark(windows)
        return np.concatenate([(1 - water) / 2, water / 2, 0.5 + 0 * water], axis=-1)

    model = model_of("pixels", three, classes=("land", "water", "ice"))
    probability, classes, _ = map_scene(scene, model, tmp_path / "scene", MapSettings())
    with warnings.catch_warnings(action="ignore"), rasterio.open(probability) as raster:
        assert raster.crs is None
        assert raster.count == 3
    with warnings.catch_warnings(action="ignore"), rasterio.open(classes) as raster:
        assert set(np.unique(raster.read(1))) == {2, 255}
        assert "THRESHOLD" not in raster.tags()


def test_windows_are_pixels_of_a_coarse_raster(tmp_path):
    db = backscatter(70, 100)
    scene = scene_of(db)

    def mean(windows):
        values = np.nanmean(windows, (1, 2), keepdims=True)
        return np.concatenate([values, values[..., 1:] - values[..., :1]], axis=-1)

    model = model_of("windows", mean, cell=32, channels=("dry", "flood", "evidence"))
    path, picture = map_scene(scene, model, tmp_path / "scene", MapSettings())
    with rasterio.open(path) as raster:
        assert raster.shape == (3, 4)
        assert raster.descriptions == ("probability of dry", "probability of flood", "evidence")
        assert tuple(raster.transform)[:6] == (320, 0, 500_000, 0, -320, 5_500_000)
        values = raster.read()
    np.testing.assert_allclose(values[0, 1, 2], db[32:64, 64:96, 0].mean(), rtol=1e-5)
    np.testing.assert_allclose(values[1, 2, 3], db[64:, 96:, 1].mean(), rtol=1e-5)
    assert picture.exists()


@pytest.mark.parametrize("exclusive", [True, False])
def test_windows_of_several_classes_show_the_most_probable_one(exclusive):
    values = np.array([[[0.2, 0.7, 0.6], [np.nan, np.nan, np.nan]]], np.float32)
    model = dataclasses.replace(
        model_of("windows", dark, cell=32, classes=("land", "water", "ice")), exclusive=exclusive
    )
    classes, probability = _window_layers(values, model)
    assert classes.values.tolist() == [[1, 255]]
    np.testing.assert_array_equal(probability.values, [[np.float32(0.7), np.nan]])
    assert ("multi-label" in classes.title) != exclusive
    assert {layer.nodata for layer in (classes, probability)} == {
        "less than half of the window, inside the scene, measured"
    }


def tokens(windows):
    """Two tokens a side with four features, of which two are independent."""
    cells = windows.reshape(len(windows), 2, 16, 2, 16, 2).mean((2, 4))
    return np.concatenate([cells, cells[..., :1] + cells[..., 1:], cells[..., :1]], axis=-1)


def test_features_are_a_raster_of_tokens_and_rows_of_windows(tmp_path):
    db = backscatter(64, 100)
    db[:, 64:96] = np.nan
    model = model_of("features", tokens, cell=16, classes=(), channels=tuple("abcd"))
    raster_path, table_path = map_scene(scene_of(db), model, tmp_path / "scene", MapSettings())
    with rasterio.open(raster_path) as raster:
        assert raster.shape == (4, 7)
        assert raster.descriptions == tuple("abcd")
        values = raster.read()
    np.testing.assert_allclose(values[1, 3, 1], db[48:, 16:32, 1].mean(), rtol=1e-5)
    assert np.isnan(values[:, :, 4:6]).all()
    table = pq.read_table(table_path)
    geo = json.loads(table.schema.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert CRS.from_user_input(json.dumps(column["crs"])).to_epsg() == 32633
    assert column["bbox"][0] == 500_000
    assert table.schema.metadata[b"MODEL"] == b"m"
    rows = table.to_pylist()
    assert {row["time"] for row in rows} == {"2021-03-04T05:06:07"}
    assert all(row["measured"] >= 0.5 for row in rows)
    last = next(row for row in rows if (row["row"], row["column"]) == (32, 0))
    expected = tokens(db[None, 32:64, :32])[0].mean((0, 1))
    np.testing.assert_allclose(last["features"], expected, rtol=1e-5)
    order, kind, rings, points = struct.unpack_from("<BIII", last["geometry"])
    assert (order, kind, rings, points) == (1, 3, 1, 5)
    ring = np.array(struct.unpack_from("<10d", last["geometry"], 13)).reshape(5, 2)
    x, y = 500_000, 5_500_000 - 320
    np.testing.assert_array_equal(
        ring, [[x, y], [x, y - 320], [x + 320, y - 320], [x + 320, y], [x, y]]
    )


def test_a_scene_without_a_measurement_has_features_without_rows(tmp_path):
    model = model_of("features", tokens, cell=16, classes=(), channels=tuple("abcd"))
    scene = scene_of(np.full((64, 64, 2), np.nan, np.float32))
    raster_path, table_path = map_scene(scene, model, tmp_path / "scene", MapSettings(None, 2))
    with rasterio.open(raster_path) as raster:
        assert raster.count == 2
        assert np.isnan(raster.read()).all()
    table = pq.read_table(table_path)
    assert (len(table), table.schema.field("row").type) == (0, "int64")
    assert table.schema.field("scene").type == "string"


def test_principal_components_are_those_of_a_singular_value_decomposition():
    values = np.random.default_rng(0).normal(size=(6, 9, 5)).astype(np.float32)
    values[2, 3] = np.nan
    found, shares = principal_components(values, 2)
    flat = values.reshape(-1, 5)
    known = np.isfinite(flat[:, 0])
    centred = flat[known] - flat[known].mean(0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    expected = np.abs(centred @ vectors[:2].T)
    np.testing.assert_allclose(np.abs(found.reshape(-1, 2)[known]), expected, atol=1e-4)
    np.testing.assert_allclose(shares, (singular**2 / (singular**2).sum())[:2], rtol=1e-5)
    assert np.isnan(found[2, 3]).all()
    with pytest.raises(InputError, match="found 6 components, expected from 1 to 5"):
        principal_components(values, 6)


def test_footprints_of_several_crs_become_longitudes_and_latitudes(tmp_path):
    degrees = (0.001, 0, 12.0, 0, -0.001, 50.0)
    corners = footprints(np.array([UTM, degrees, UTM]), np.full(3, 8), np.array([8, 10, 8]))
    np.testing.assert_allclose(corners[1, 2], [12.01, 49.992])
    same, crs = common_crs(corners[:1], ["EPSG:32633"])
    assert crs == "EPSG:32633"
    np.testing.assert_array_equal(same, corners[:1])
    together, crs = common_crs(corners, ["EPSG:32633", "EPSG:4326", ""])
    assert crs == "OGC:CRS84"
    np.testing.assert_allclose(together[0, 0], [15.0, 49.6527], atol=1e-3)  # the central meridian
    np.testing.assert_allclose(together[1], corners[1])
    write_geoparquet(tmp_path / "a.parquet", together, crs, {"id": np.array(["a", "b", "c"])}, {})
    assert pq.read_table(tmp_path / "a.parquet")["geometry"].null_count == 1


def test_values_beyond_the_border_of_a_scene_are_not_squeezed_into_a_quicklook():
    grid = Grid((40, 100), "EPSG:32633", UTM)
    windows = QuicklookLayer(np.zeros((2, 4)), "windows", cell=32)
    assert windows.extent(grid) == (0, 128, 64, 0)
    assert QuicklookLayer(np.zeros((2, 4)), "resized").extent(grid) == (0, 100, 40, 0)
    classes = np.array([[0, 1, 2, 0], [1, 2, 0, 1]], np.uint8)
    layer = QuicklookLayer(classes, "windows", classes=("x", "y", "z"), cell=32)
    picture = plt.imread(io.BytesIO(draw_quicklook("scene", [layer], grid)))[..., :3]
    masks = np.array(
        [np.isclose(picture, colour, atol=0.01).all(-1) for colour in class_colours(3)[:, :3]]
    )
    first, second, any_class = (
        mask[np.flatnonzero(masks[0].sum(1) > 50)[0]] for mask in (*masks[:2], masks.any(0))
    )
    width = np.ptp(np.flatnonzero(any_class)) + 1
    assert (second.argmax() - first.argmax()) / width == pytest.approx(0.32, abs=0.01)


def test_a_scale_bar_has_the_length_it_names():
    grid = Grid((100, 1000), "EPSG:32633", UTM)
    assert scale_bar(grid) == (200, "2 km")
    degrees = Grid((100, 1000), "EPSG:4326", (1e-4, 0, 10, 0, -1e-4, 60.005))
    width, height = pixel_size(degrees)
    np.testing.assert_allclose([width, height], [5.566, 11.132], rtol=1e-4)
    length, label = scale_bar(degrees)
    assert label == "1 km"
    np.testing.assert_allclose(length * width, 1000)
    # 6,378,137 pi / 3 cos(60°): a metre of the Mercator map is half a metre on the ground
    y = 6_378_137 * np.log(np.tan(np.radians(75)))
    mercator = Grid((100, 1000), "EPSG:3857", (10.0, 0, 0, 0, -10.0, y + 500))
    np.testing.assert_allclose(pixel_size(mercator), [5, 5], rtol=1e-2)
    assert scale_bar(Grid((50, 90), "", (np.nan,) * 6)) == (20, "20 pixels")


def test_partial_files_of_a_scene_are_removed_and_no_others(tmp_path):
    own = ["._a[1]_classes.tif.7.partial", "._a[1].png.7.rows.partial", "._a[1].abcd_123.partial"]
    others = ["._a[1]b.png.7.partial", "._a1.png.7.partial", "._a[1].b.abcd_123.partial"]
    for name in (*own[:2], *others):
        (tmp_path / name).touch()
    (tmp_path / own[2]).mkdir()
    remove_partial_files(tmp_path / "_a[1]")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ((128, 65, 1, None), "found an overlap of 65 px"),
        ((128, 12, 8, None), "expected multiples of 8 px"),
        ((130, 0, 130, 128), "found windows of 130 px, expected at most 128 px"),
    ],
)
def test_windows_that_do_not_fit_a_model_are_refused(windows, message):
    check_windows(128, 64, 8, 128)
    with pytest.raises(InputError, match=message):
        check_windows(*windows)


@pytest.mark.parametrize(
    ("record_size", "task", "resize_mode", "window"),
    [
        (None, None, "resize", 128),
        (256, None, "resize", 256),
        (256, None, "pad", 128),
        (256, "classification", "resize", 256),
        (256, "flood", "resize", 128),
    ],
)
def test_windows_cover_what_an_input_covered_in_training(record_size, task, resize_mode, window):
    run = describe(task=task)
    run = dataclasses.replace(run, dataset=DatasetDescription("d", record_size=record_size))
    source = SimpleNamespace(arch=run.model.architecture, metadata=run)
    assert trained_window(source, resize_mode) == window


def test_an_error_of_gdal_that_rasterio_passes_on_names_the_file():
    with (
        pytest.raises(InputError, match=r"a.tif cannot be written \(.*full"),
        report_raster_errors(Path("a.tif")),
    ):
        raise CPLE_AppDefinedError(3, 1, "the disk is full")


def test_a_second_date_is_needed_where_the_model_has_two(tmp_path):
    with pytest.raises(InputError, match="found 2 dates of folder/scene, expected 1"):
        map_scene(
            scene_of(backscatter(9, 9), dates=2),
            model_of("pixels", dark),
            tmp_path / "scene",
            MapSettings(),
        )


@pytest.mark.parametrize("limit", [100_000, 380_000])
def test_a_file_that_does_not_fit_on_the_disk_never_appears(tmp_path, limit):
    """The smaller limit is met by the rows, the larger by the Cloud-Optimized GeoTIFF."""
    values = np.random.default_rng(0).integers(0, 200, (600, 600, 1), np.uint8)
    bands = RasterBands(("noise",), "uint8", 255, "mean")
    (tmp_path / ".scene_x.tif.1.partial").write_bytes(b"")
    with file_size_limit(limit), pytest.raises(InputError, match=r"noise.tif cannot be written"):
        write_array(tmp_path / "noise.tif", values, Grid((600, 600), "", UTM), bands, {})
    assert [path.name for path in tmp_path.iterdir()] == [".scene_x.tif.1.partial"]
