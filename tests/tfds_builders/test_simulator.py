"""Simulated patches compared with real ones.

"Real" values were measured on six patches of BigEarthNet-S1 with the same functions. They hold
fields, pasture, forest, relief and one lake, no town; so they are compared with the simulated
patches that have little water and town.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from benchmarks.simulator_check import PERCENTS, quantiles, resembles, speckle_in_homogeneous_areas
from tfds_builders.synthetic_s1 import backscatter
from tfds_builders.synthetic_s1.backscatter import point_targets
from tfds_builders.synthetic_s1.fields import blur, fractal_field
from tfds_builders.synthetic_s1.land_cover import CLASSES, LANDSCAPES, NUMBER
from tfds_builders.synthetic_s1.simulator import Patch, labels, simulate
from tfds_builders.synthetic_s1.speckle import LOOKS, measure, resample, speckle

WATER = [NUMBER["Calm water"], NUMBER["Wind-roughened water"]]


@pytest.fixture(scope="module")
def patches():
    return [simulate(120, (0, number)) for number in range(300)]


@pytest.fixture(scope="module")
def like_real(patches):
    alike = [patch.backscatter for patch in patches if resembles(patch)]
    assert len(alike) > 100
    return alike


@pytest.fixture(scope="module")
def homogeneous_areas(like_real):
    return [speckle_in_homogeneous_areas(patch) for patch in like_real[:100]]


@pytest.mark.parametrize("size", [32, 57, 120, 256])
def test_a_seed_is_a_patch_in_any_thread_and_at_any_size(size):
    with ThreadPoolExecutor(3) as pool:
        copies = list(pool.map(lambda _: simulate(size, (5, 1)), range(3)))
    for copy in copies:
        for ours, again in zip(copy, simulate(size, (5, 1)), strict=True):
            np.testing.assert_array_equal(ours, again)
    assert (simulate(size, (5, 1)).noise_free != simulate(size, (5, 2)).noise_free).any()


def test_a_seed_gives_the_patches_that_it_always_gave():
    """Values of stored patches: a dataset can be simulated again from its seed."""
    for seed, counts, seen, truth in (
        (1, [856, 0, 163, 221, 0, 371, 2463, 0, 22, 0, 0], -11.8305, -11.4988),
        (4, [0, 0, 1624, 540, 831, 338, 631, 132, 0, 0, 0], -10.3810, -10.1679),
    ):
        patch = simulate(64, (5, seed))
        assert np.bincount(patch.land_cover.ravel(), minlength=len(CLASSES)).tolist() == counts
        assert patch.backscatter[..., 1].mean() == pytest.approx(seen, abs=1e-3)
        assert patch.noise_free[..., 1].mean() == pytest.approx(truth, abs=1e-3)


def test_a_patch_has_the_stated_shapes_and_types(patches):
    for patch in patches:
        assert patch.backscatter.shape == patch.noise_free.shape == (120, 120, 2)
        assert patch.backscatter.dtype == patch.noise_free.dtype == np.float32
        assert patch.land_cover.shape == (120, 120)
        assert patch.land_cover.dtype == np.uint8
        assert patch.land_cover.max() < len(CLASSES)
        assert isinstance(patch.incidence_angle, float)
    angles = [patch.incidence_angle for patch in patches]
    assert 30 <= min(angles) < 31
    assert 45 < max(angles) <= 46


@pytest.mark.parametrize("looks", [LOOKS[0], LOOKS[-1]])
def test_speckle_is_gamma_of_unit_mean_and_independent_between_bands(looks):
    """Nominal: 4.4 looks before resampling. Real: correlation of the bands 0.01 to 0.14."""
    intensity = speckle(np.random.default_rng(0), 700, looks).astype(np.float64)
    assert intensity.mean() == pytest.approx(1.0, abs=0.01)
    assert 1 / intensity.var() == pytest.approx(looks, rel=0.03)
    skewness = ((intensity - 1) ** 3).mean() / intensity.std() ** 3
    assert skewness == pytest.approx(2 / np.sqrt(looks), rel=0.06)  # of a gamma distribution
    assert abs(np.corrcoef(intensity.reshape(2, -1))[0, 1]) < 0.02


def test_resampled_speckle_is_correlated_as_in_real_products():
    """Real: lag-1 0.63 to 0.71, lag-2 0.12 to 0.25; rows and columns alike."""
    intensity = resample(speckle(np.random.default_rng(0), 700, 4.4)).astype(np.float64)
    deviation = intensity - intensity.mean()
    for lag, low, high in ((1, 0.63, 0.71), (2, 0.12, 0.25)):
        for shifted, image in (
            (deviation[:, lag:], deviation[:, :-lag]),
            (deviation[..., lag:], deviation[..., :-lag]),
        ):
            assert low <= (shifted * image).mean() / intensity.var() <= high


def test_homogeneous_areas_have_the_looks_of_real_ones(homogeneous_areas):
    """Real, six patches: VH 6.4 to 8.7, VV 8.6 to 9.8, medians 7.9 and 8.9."""
    vh, vv = np.transpose([patch.looks for patch in homogeneous_areas])
    assert np.median(vh) == pytest.approx(7.9, abs=1.0)
    assert np.median(vv) == pytest.approx(8.9, abs=1.0)
    assert np.percentile(vv, 95) - np.percentile(vv, 5) > 1.5  # scenes differ


def test_homogeneous_areas_have_the_correlation_of_real_ones(homogeneous_areas):
    """Real: lag-1 0.60 to 0.64, lag-2 0.08 to 0.14 in 11x11 windows minus their own mean."""
    lag1 = np.median([patch.lag1 for patch in homogeneous_areas], axis=0)
    lag2 = np.median([patch.lag2 for patch in homogeneous_areas], axis=0)
    assert ((lag1 > 0.59) & (lag1 < 0.66)).all()
    assert ((lag2 > 0.07) & (lag2 < 0.16)).all()


def test_bands_are_hardly_correlated_in_homogeneous_areas(homogeneous_areas):
    """Real: 0.01 to 0.19, median 0.09: independent speckle, shared texture."""
    assert 0.0 < np.median([patch.between_bands for patch in homogeneous_areas]) < 0.19


# Lowest and highest over the six real patches, dB, by percent of the pixels of a patch.
REAL_QUANTILES = {
    "VH": [
        (-28.9, -22.8),
        (-25.8, -20.6),
        (-20.3, -17.7),
        (-18.2, -15.6),
        (-16.1, -13.8),
        (-13.2, -11.4),
        (-11.3, -9.6),
    ],
    "VV": [
        (-26.0, -14.2),
        (-22.9, -12.2),
        (-14.2, -9.6),
        (-12.3, -7.9),
        (-10.2, -6.3),
        (-7.1, -3.9),
        (-5.2, -1.7),
    ],
    "VV - VH": [
        (-3.0, 1.1),
        (-0.4, 3.2),
        (2.8, 6.0),
        (4.8, 7.9),
        (6.9, 9.8),
        (9.7, 12.8),
        (11.8, 15.3),
    ],
}


def test_quantiles_lie_within_those_of_real_patches(like_real):
    simulated = quantiles(like_real)
    for values, (name, ranges) in zip(simulated.T, REAL_QUANTILES.items(), strict=True):
        for percent, value, (low, high) in zip(PERCENTS, values, ranges, strict=True):
            assert low - 0.3 <= value <= high + 0.3, (name, percent)


def test_there_is_no_spike_at_a_floor(patches):
    """Resampling spreads the values at which noise subtraction reaches zero."""
    sea = [patch.backscatter[np.isin(patch.land_cover, WATER), 0] for patch in patches]
    values = np.concatenate(sea)
    counts, _ = np.histogram(values[np.isfinite(values)], np.arange(-50, -20, 0.25))
    around = (counts[:-2] + counts[2:]) / 2
    many = around > 400
    assert many.sum() > 40
    assert (counts[1:-1][many] < 1.2 * around[many]).all()
    assert np.nanpercentile(values, 1) < -35  # real VH reaches -38 dB


def test_speckle_and_noise_leave_power_unbiased_on_land(patches):
    """Noise is added before the speckle and subtracted after it: the mean power stays."""
    truth = np.stack([patch.noise_free for patch in patches]).astype(np.float64)
    seen = np.stack([patch.backscatter for patch in patches]).astype(np.float64)
    for band in range(2):
        land = (truth[..., band] > -20) & (truth[..., band] < 0)
        ratio = (10 ** (seen[land, band] / 10)).mean() / (10 ** (truth[land, band] / 10)).mean()
        assert ratio == pytest.approx(1.0, abs=0.01)


def test_subtracting_noise_darkens_where_speckle_is_dark():
    """Signal 1, noise 1: (1 + 1) speckle - 1, but not under the residue."""
    power, floor = np.ones((2, 1, 3), np.float32), np.ones(3, np.float32)
    multiplier = np.tile(np.float32([2.0, 0.75, 0.25]), (2, 1, 1))
    measured = measure(power, floor, multiplier)[0, 0]
    np.testing.assert_allclose(measured[:2], [3.0, 0.5])
    assert 0 < measured[2] < 0.25


@pytest.mark.parametrize("seed", range(6))
def test_backscatter_falls_with_incidence(seed):
    """Land -0.1 to -0.2 dB per degree in VV; water -0.5 to -1. The same scene under two angles."""
    near, far = (
        backscatter.draw_ground(np.random.default_rng(seed), 64, angle) for angle in (32.0, 44.0)
    )
    np.testing.assert_array_equal(near.cover, far.cover)
    slope = 10 * np.log10(far.power[1] / near.power[1]) / 12
    for number in np.unique(near.cover):
        low, high = (-1.0, -0.5) if number in WATER else (-0.21, -0.09)
        assert low < slope[near.cover == number].mean() < high


def test_incidence_grows_across_a_scene():
    """0.064 degrees per km; -0.8 dB per degree in VV on wind-roughened water."""
    cover = np.full((100, 100), NUMBER["Wind-roughened water"], np.uint8)
    region = np.zeros((100, 100), np.int32)
    decibel = backscatter.mean_backscatter(np.random.default_rng(0), cover, region, 1, 38.0)[1]
    assert decibel[0, -1] - decibel[0, 0] == pytest.approx(-0.8 * 0.064 * 0.99, rel=0.01)
    assert (decibel == decibel[0]).all()


@pytest.mark.parametrize("degrees", [30.0, 38.0, 46.0])
def test_hh_over_water_has_the_polarisation_ratio_of_the_sea(degrees):
    """Thompson et al. 1998, alpha 0.6; the Bragg limit (alpha 0) is below, a specular sea above."""
    cover = CLASSES["Calm water"]
    expected, bragg = (
        20
        * np.log10(
            (1 + a * np.tan(np.radians(degrees)) ** 2) / (1 + 2 * np.tan(np.radians(degrees)) ** 2)
        )
        for a in (0.6, 0.0)
    )
    assert cover.hh + cover.slope_hh * (degrees - 38) == pytest.approx(expected, abs=0.1)
    assert bragg < expected - 1.5


def test_hh_over_soil_follows_models_of_surface_scattering():
    """Smooth: small perturbations, permittivity 3.5; on other land HH is within 1.5 dB of VV."""
    permittivity, sine, cosine = 3.5, np.sin(np.radians(38)), np.cos(np.radians(38))
    root = np.sqrt(permittivity - sine**2)
    hh = (cosine - root) / (cosine + root)
    vv = (permittivity - 1) * (sine**2 - permittivity * (1 + sine**2))
    vv /= (permittivity * cosine + root) ** 2
    assert CLASSES["Smooth sand or asphalt"].hh == pytest.approx(20 * np.log10(hh / vv), abs=0.1)
    for name, permittivity in (("Bare soil", 6.0), ("Wet soil", 15.0)):  # Oh et al. 1992, ks = 1
        nadir = ((1 - permittivity**0.5) / (1 + permittivity**0.5)) ** 2
        root = 1 - (2 * 38 / 180) ** (1 / (3 * nadir)) * np.exp(-1)
        assert CLASSES[name].hh == pytest.approx(20 * np.log10(root), abs=0.1)
    land = [cover.hh for name, cover in CLASSES.items() if cover.relief and "Smooth" not in name]
    assert len(land) == 8
    assert max(map(abs, land)) <= 1.5


def test_a_radar_that_transmits_h_sees_the_same_scene():
    """HV is VH by reciprocity; HH differs from VV by the ratio of the class; bands are apart."""
    usual, other = (simulate(64, (5, 4), bands) for bands in (("VH", "VV"), ("HV", "HH")))
    np.testing.assert_array_equal(other.land_cover, usual.land_cover)
    np.testing.assert_array_equal(other.backscatter[..., 0], usual.backscatter[..., 0])
    for band, image in (("VV", usual.backscatter[..., 1:]), ("HH", other.backscatter[..., 1:])):
        np.testing.assert_array_equal(simulate(64, (5, 4), (band,)).backscatter, image)
    angles, cover = 38.0, np.arange(len(CLASSES), dtype=np.uint8)[:, None].repeat(11, 1)
    co = [
        backscatter.mean_backscatter(
            np.random.default_rng(0), cover, np.zeros_like(cover, np.int32), 1, angles, band
        )[1]
        for band in ("VV", "HH")
    ]
    ratio = (co[1] - co[0])[:, 5]
    np.testing.assert_allclose(ratio, [c.hh for c in CLASSES.values()], atol=0.01)


def test_texture_is_correlated_over_50_to_200_m():
    field = fractal_field(np.random.default_rng(0), 600, backscatter.TEXTURE_STEPS)
    correlation = [(field[:, lag:] * field[:, :-lag]).mean() / field.var() for lag in range(1, 30)]
    reach = 1 + np.argmax(np.array(correlation) < np.exp(-1))
    assert 5 <= reach <= 20  # pixels of 10 m


def test_texture_is_shared_by_the_bands_and_of_the_order_of_the_class(monkeypatch):
    """The same scene with its texture and without."""
    seeds = range(6)
    textured = [backscatter.draw_ground(np.random.default_rng(seed), 400, 38.0) for seed in seeds]
    flat = np.ones_like(backscatter.texture_tables())
    monkeypatch.setattr(backscatter, "texture_tables", lambda: flat)
    bare = [backscatter.draw_ground(np.random.default_rng(seed), 400, 38.0) for seed in seeds]
    texture = np.stack([t.power / b.power for t, b in zip(textured, bare, strict=True)], axis=1)
    np.testing.assert_allclose(texture[0], texture[1], rtol=1e-4)
    cover = np.stack([ground.cover for ground in bare])
    checked = 0
    for name in ("Crops", "Forest", "Grassland", "Bare soil", "Urban"):
        inside = texture[1][cover == NUMBER[name]].astype(np.float64)
        if inside.size > 50_000:
            checked += 1
            assert inside.mean() == pytest.approx(1.0, abs=0.05)
            assert 1 / inside.var() == pytest.approx(CLASSES[name].texture, rel=0.25)
    assert checked >= 3


def test_towns_have_the_most_point_targets_and_none_exceeds_20_db():
    rng = np.random.default_rng(0)
    images = {}
    for name in ("Urban", "Crops", "Calm water"):
        images[name] = point_targets(rng, np.full((600, 600), NUMBER[name], np.uint8))
    towns, crops, water = (image[1].sum() for image in images.values())
    assert towns > 20 * crops
    assert crops > water > 0
    crops = images["Crops"]
    assert 15 < 10 * np.log10(crops[1].max()) < 20.1
    assert crops[0].sum() < 0.5 * crops[1].sum()
    peak = np.unravel_index(crops[1].argmax(), crops[1].shape)
    assert crops[1][peak[0], peak[1] - 1 : peak[1] + 2].min() > 0.05 * crops[1].max()  # spread


def test_borders_are_nodata_in_both_bands_and_in_the_truth(patches):
    shares = []
    for patch in patches:
        nodata = np.isnan(patch.backscatter)
        np.testing.assert_array_equal(nodata[..., 0], nodata[..., 1])
        np.testing.assert_array_equal(nodata, np.isnan(patch.noise_free))
        assert np.isfinite(patch.backscatter[~nodata]).all()
        assert np.isfinite(patch.noise_free[~nodata]).all()
        shares.append(nodata.mean())
    assert 0.05 < (np.array(shares) > 0).mean() < 0.16
    assert max(shares) < 0.6


def test_some_borders_have_a_strip_of_low_noise_that_is_not_nodata(patches):
    cut = [patch for patch in patches if np.isnan(patch.backscatter).any()]
    dark = []
    for patch in cut:
        nodata = np.isnan(patch.backscatter[..., 0])
        edge = binary_dilation(nodata) & ~nodata
        dark.append(np.median(patch.backscatter[edge]) < -28)
    assert 0.25 < np.mean(dark) < 0.9


def test_the_ground_goes_on_under_nodata(patches):
    cut = [patch for patch in patches if np.isnan(patch.backscatter).mean() > 0.1]
    hidden = [np.unique(p.land_cover[np.isnan(p.backscatter[..., 0])]).size for p in cut]
    assert np.mean(np.array(hidden) > 1) > 0.5


def test_labels_count_what_is_seen():
    cover = np.full((10, 20), NUMBER["Forest"], np.uint8)
    cover[0, 0] = NUMBER["Urban"]  # 1 % of the left half
    cover[:, 10:] = NUMBER["Crops"]
    image = np.zeros((10, 20, 2), np.float32)
    assert labels(Patch(image, image, cover, 38.0)) == ["Crops", "Forest"]
    image[:, 10:] = np.nan
    assert labels(Patch(image, image, cover, 38.0)) == ["Forest", "Urban"]


def test_every_class_occurs(patches):
    assert {name for patch in patches for name in labels(patch)} == set(CLASSES)
    assert all(labels(patch) for patch in patches)


def test_landscapes_name_classes_and_shares_are_whole():
    assert sum(landscape.share for landscape in LANDSCAPES.values()) == pytest.approx(1.0)
    for landscape in LANDSCAPES.values():
        assert set(landscape.parcels) <= set(CLASSES)
        assert sum(landscape.parcels.values()) == pytest.approx(1.0)
        assert sum(landscape.water) <= 1


def class_means(patches, name):
    """Return the mean truth of a class in each patch with enough of it: (patch, 2) dB."""
    means = []
    for patch in patches:
        inside = (patch.land_cover == NUMBER[name]) & np.isfinite(patch.noise_free[..., 0])
        inside = binary_erosion(inside, iterations=2)  # neighbours contribute at the border
        if inside.sum() > 200:
            means.append(patch.noise_free[inside].mean(0))
    return np.array(means)


@pytest.mark.parametrize(
    ("first", "second"),
    [("Calm water", "Smooth sand or asphalt"), ("Crops", "Grassland"), ("Forest", "Urban")],
)
def test_band_means_do_not_separate_classes(patches, first, second):
    """No threshold on a band separates look-alikes."""
    ours, theirs = class_means(patches, first), class_means(patches, second)
    assert min(len(ours), len(theirs)) > 15
    for band in range(2):
        thresholds = np.concatenate([ours[:, band], theirs[:, band]])[:, None]
        below = (ours[:, band] < thresholds).mean(1) - (theirs[:, band] < thresholds).mean(1)
        assert np.abs(below).max() < 0.85  # 1 where a threshold is never wrong


def test_class_means_are_the_typical_ones(patches):
    """Calm water was measured: -27.7 dB in VH and -20.7 in VV."""
    for name, vh, vv in (
        ("Calm water", -28, -21),
        ("Crops", -18.5, -12),
        ("Forest", -13.5, -8),
        ("Wetland", -18, -11),
    ):
        np.testing.assert_allclose(class_means(patches, name).mean(0), (vh, vv), atol=1.3)
    wet, bare = (class_means(patches, name).mean(0) for name in ("Wet soil", "Bare soil"))
    assert ((wet - bare > 1.5) & (wet - bare < 4.5)).all()


def test_blur_keeps_the_mean_and_spreads_a_point():
    image = np.zeros((1, 5, 5), np.float32)
    image[0, 2, 2] = 1
    weights = np.array([0.2, 0.6, 0.2])
    np.testing.assert_allclose(blur(image, 0.2)[0], weights[:, None] * weights, atol=1e-7)
