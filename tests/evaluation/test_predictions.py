"""Predictions: validation, and files that return what was saved."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sar_mixmae_jax.evaluation.predictions import Predictions, load_predictions, save_predictions
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.utils.errors import InputError


def classified(**changes) -> Predictions:
    fields = {
        "task": "classification",
        "classes": ("water", "forest"),
        "ids": np.array(["a", "b", "c"]),
        "logits": np.array([[0.0, 2.0], [-30.0, 40.0], [1.0, -1.0]], np.float32),
        "labels": np.array([[0, 1], [1, 1], [0, 0]], np.uint8),
        "columns": {"group": np.array(["x", "x", "y"]), "time": np.array([1.0, np.nan, 2.0])},
        "provenance": {"dataset": "d", "caveats": ["ünsure"]},
    }
    return Predictions(**(fields | changes))


def paired(labels=(1, 0, 0), columns=(), **changes) -> Predictions:
    known = {
        "group": np.array([0, 0, 1]),
        "sequence": np.array(["s", "s", "t"]),
        "before": np.array(["s0", "s0", "t0"]),
        "after": np.array(["s1", "s2", "t1"]),
    }
    fields = {
        "task": "flood",
        "classes": ("dry", "flood"),
        "ids": np.array(["p", "q", "r"]),
        "logits": np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0]], np.float32),
        "labels": np.array(labels),
        "columns": known | dict(columns),
        "provenance": {},
    }
    return Predictions(**(fields | changes))


def test_probabilities():
    expected = 1 / (1 + np.exp(-np.array([[0.0, 2.0], [-30.0, 40.0], [1.0, -1.0]])))
    np.testing.assert_allclose(classified().probabilities, expected, rtol=1e-12)
    weights = np.exp([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0]])
    np.testing.assert_allclose(paired().probabilities, weights[:, 1] / weights.sum(1), rtol=1e-12)
    assert paired().probabilities[2] == 0.5


def test_a_file_gives_back_what_was_saved(tmp_path):
    for saved in (classified(), paired(columns={"onset": np.array([True, False, False])})):
        save_predictions(saved, tmp_path / "p.npz")
        loaded = load_predictions(tmp_path / "p.npz")
        for field in dataclasses.fields(saved):
            left, right = getattr(saved, field.name), getattr(loaded, field.name)
            if field.name == "columns":
                assert left.keys() == right.keys()
                for name in left:
                    assert left[name].dtype == right[name].dtype
                    np.testing.assert_array_equal(left[name], right[name])
            else:
                np.testing.assert_array_equal(left, right)
        assert loaded.logits.dtype == np.float32
        assert loaded.labels.dtype == np.uint8
        assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


NAN = np.array([[0.0, 2.0], [np.nan, 1.0], [1.0, np.inf]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": NAN}, "2 of 3 rows: logits are not finite .*: b, c"),
        ({"logits": np.full((3, 2), 1e39)}, "3 of 3 rows: logits are not finite"),
        ({"labels": NAN}, "labels are not finite.*: b, c"),
        ({"labels": np.array([[0, 1], [2, 1], [0, 0]])}, "neither 0 nor 1: b"),
        ({"labels": np.zeros((2, 2))}, r"labels are .* expected numbers \(3, 2\) or \(3,\)"),
        ({"logits": np.zeros((3, 3))}, "logits are"),
        ({"logits": np.array([["a", "b"]] * 3)}, "logits are"),
        ({"ids": np.array(["a", "b", "a"])}, "more than once, .*: a"),
        ({"ids": np.array([1, 2, 3])}, "ids are int64"),
        ({"classes": ("water", "water")}, "each name once"),
        ({"columns": {}}, r"columns \[\], expected one named group"),
        ({"columns": {"group": np.zeros(2)}}, "column 'group' is float64 of shape"),
        ({"columns": {"group": np.array([0, np.nan, 1])}}, "'group' is not finite: b"),
        ({"columns": {"group": np.array([None, 1, 2])}}, "column 'group' is object"),
        ({"provenance": {"path": object()}}, "about is not plain JSON"),
        ({"provenance": {"loss": float("nan")}}, "about is not plain JSON"),
        (
            {"ids": np.array([], str), "logits": np.zeros((0, 2)), "labels": np.zeros((0, 2))},
            "at least one row",
        ),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        classified(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("flood", "dry")}, r"expected \('dry', 'flood'\)"),
        ({"columns": {"group": np.array([0, 1, 2])}}, "'sequence' has values that lie in two.*: q"),
        ({"columns": {"onset": np.array([1, 0, 0])}}, "'onset' is int64, expected bool"),
        ({"columns": {"onset": np.array([True, True, False])}}, "onset is true, .*: q"),
        ({"columns": {"flooded_fraction": np.array([30.0, np.nan, np.nan])}}, "between 0 and 1: p"),
        ({"columns": {"hard_case": np.zeros(3)}}, "'hard_case' is float64, expected text"),
        ({"columns": {"gap_days": np.array(["1", "2", "3"])}}, "'gap_days' is <U1"),
    ],
)
def test_what_is_refused_of_floods(changes, message):
    predictions = paired(**changes)
    with pytest.raises(InputError, match=message):
        get_task("flood").check_predictions(predictions)


def test_floods_need_their_columns():
    predictions = Predictions(
        "flood", ("dry", "flood"), np.array(["a"]), np.zeros((1, 2)), np.zeros(1),
        {"group": np.array(["g"])}, {},
    )  # fmt: skip
    with pytest.raises(InputError, match="lack before, after, sequence: found \\['group'\\]"):
        get_task("flood").check_predictions(predictions)


def test_predictions_are_checked_against_their_task():
    with pytest.raises(InputError, match="unknown task 'regression': known are"):
        get_task(classified(task="regression").task)
    one_class_each = classified(labels=np.zeros(3))
    with pytest.raises(InputError, match=r"labels are .* expected numbers \(3, 2\)"):
        get_task("classification").check_predictions(one_class_each)


def test_one_of_three_classes():
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    fields = {"classes": ("water", "forest", "town"), "logits": logits}
    predictions = classified(labels=np.array([1, 0, 2]), **fields)
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1)
    np.testing.assert_allclose(predictions.probabilities[2], 1 / 3)
    with pytest.raises(
        InputError, match="1 of 3 rows: labels are not whole numbers from 0 to 2: b"
    ):
        classified(labels=np.array([1, 3, 2]), **fields)


def test_files_that_are_no_predictions(tmp_path):
    path = tmp_path / "p.npz"
    with pytest.raises(InputError, match=r"p\.npz cannot be read .*check the path"):
        load_predictions(path)
    save_predictions(classified(), path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"p\.npz"):
            load_predictions(path)
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes(8) + whole[middle + 8 :])
    with pytest.raises(InputError, match=r"p\.npz"):
        load_predictions(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(InputError, match=r"holds no predictions .*: remove it, and write it again"):
        load_predictions(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="holds no predictions"):
        load_predictions(tmp_path / "one.npy")


class Trap:
    """An object whose pickle runs code when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_opened(tmp_path):
    path, created = tmp_path / "p.npz", tmp_path / "sprung"
    np.savez(path, head=np.array([Trap(created)], object))
    with pytest.raises(InputError, match="holds no predictions"):
        load_predictions(path)
    assert not created.exists()
    np.load(path, allow_pickle=True)["head"]
    assert created.exists()  # so it is one


def test_what_a_file_holds_is_checked(tmp_path):
    path = tmp_path / "p.npz"
    save_predictions(classified(), path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["logits"][1] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"p\.npz: 1 of 3 rows: logits are not finite.*: b"):
        load_predictions(path)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        save_predictions(classified(), tmp_path / "nowhere" / "p.npz")
