"""The page about a run: its numbers are those of the files, and files cannot break it."""

import base64
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sar_mixmae_jax.cli.report import main
from sar_mixmae_jax.run_report import plots
from sar_mixmae_jax.run_report.history import Series, read_history, read_series
from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.run_report.reproduce import differences
from sar_mixmae_jax.utils.errors import InputError

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> & $x^$ \x1b[31m \ud800'
START = {
    "step": 0,
    "time": "2026-11-22T15:40:00+00:00",
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    "python": "3.11.7",
    "git": "b84dfbf" + 33 * "0",
    "device": "NVIDIA H200",
    "devices": 8,
    "processes": 1,
    "host": "node",
    "command": ["python", "-m", "sar_mixmae_jax.main", "--workdir=runs/a b"],
}
LAST = {
    **START,
    "step": 1000,
    "versions": {"jax": "0.10.3", "flax": "0.12.8"},
    "devices": 4,
    "git": "c1d2e3f with changes",
    "command": [*START["command"], "--config.epochs=80"],
}
RUN = {
    "config": {
        "trainer": "pretrain",
        "seed": 7,
        "batch_size": 2048,
        "epochs": 64.0,
        "total_steps": None,
        "bands": ["VH", "VV"],
        "model": {"variant": "base"},
        "weighting": {"name": "per_channel", "clip": None},
        "optimizer": {"base_learning_rate": 1.5e-4},
    },
    "dataset": {
        "name": "bigearthnet_s1/v2/2.0.0/train+validation",
        "checksum": 32 * "3f",
        "records": 237871,
        "bands": ["VH", "VV"],
        "unit": "dB",
        "statistics": {"mean": [-19.230912345, -12.5], "std": [3.1, 2.9], "of": "train"},
        "caveats": ["spatially dependent split"],
    },
    "starts": [START, {**START, "step": 500}, LAST],
}


def lines() -> Iterator[dict]:
    """2,000 steps; loss and rate fall and rise where the tests look for them."""
    rng = np.random.default_rng(0)
    for step in range(0, 2001, 20):
        if step:
            loss = 0.9 + 1.6 * np.exp(-step / 300) + 0.01 * rng.random()
            yield {
                "step": step,
                "loss": {1260: None, 1500: 0.4321, 2000: 0.9876}.get(step, loss),
                "gradient_norm": 2.0 / (1 + step / 30),
                "learning_rate": 1e-6 * step,
                "epoch": step / 100,
                "images_per_second": 1234.0,
                "seconds/data": 0.1,
                "seconds/compute": 0.3,
                **({"seconds/save": 2.0} if step == 1000 else {}),
            }
        if step % 500 == 0:
            yield {
                "step": step,
                "explained_variance": {1000: 0.456, 2000: 0.345}.get(step, 0.1),
                "weight_cv/VH": 0.0695,
                "weight_cv/VV": 0.028,
                "weight_p05/VH": 1.25,
                "loss_dark_share/VH": 0.3 - 5e-5 * step,
                "bias_db/VH": -0.1,
                "bias_db/VV": 0.1,
            }
    yield {"step": 1000, "checkpoint_seconds": 3.25}


def fill(workdir: Path, run=RUN, metrics=None, cut: str = "") -> Path:
    """Write `run.json` and the log of a run and return its folder."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "run.json").write_text(json.dumps(run))
    if metrics is not None:
        text = "".join(json.dumps(line) + "\n" for line in metrics)
        (workdir / "metrics.jsonl").write_text(text + cut)
    return workdir


class Page(HTMLParser):
    """Content as a browser parses it: elements, text, and rows of tables."""

    EMPTY = ("meta", "img")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.notices: list[str] = []
        self.text, self._open = "", []
        self.feed(path.read_text())
        assert not self._open, "elements that are not closed"
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        """Record the start of an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append((tag, dict(attrs).get("class")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if ("p", "notice") in self._open[-1:]:
            self.notices.append("")

    def handle_endtag(self, tag):
        """Check that the end tag is that of the element opened last."""
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        """Record text, also as that of a cell or a notice around it."""
        if ("style", None) in self._open:
            return
        self.text += data + " "
        if any(tag in ("td", "th") for tag, _ in self._open):
            self.rows[-1][-1] += data
        if ("p", "notice") in self._open:
            self.notices[-1] += data

    def row(self, name: str) -> list[str]:
        """The cells beside the one with a name."""
        (found,) = (row[row.index(name) + 1 :] for row in self.rows if name in row)
        return found

    def images(self) -> list[Image.Image]:
        """The pictures, decoded."""
        sources = [attrs["src"] for tag, attrs in self.elements if tag == "img"]
        prefix = "data:image/png;base64,"
        assert all(source.startswith(prefix) for source in sources)
        return [
            Image.open(BytesIO(base64.b64decode(source.removeprefix(prefix)))) for source in sources
        ]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    workdir = fill(tmp_path_factory.mktemp("run"), metrics=lines(), cut='{"step": 2020, "lo')
    Image.new("RGB", (30, 50), "red").save(workdir / "reconstruction.png")
    return Page(write_page(workdir))


def test_the_page_needs_no_other_file_and_runs_nothing(page):
    names = {tag for tag, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "svg"}
    assert not {name for _, attrs in page.elements for name in attrs if name.startswith("on")}
    images = page.images()
    assert len(images) == 4  # training, speed, diagnostics, the picture
    assert images[-1].size == (30, 50)
    assert images[-1].convert("RGB").getpixel((1, 1)) == (255, 0, 0)
    assert all(min(np.asarray(one).shape[:2]) > 200 for one in images[:3])


def test_the_key_numbers_are_those_of_the_files(page):
    assert "base on bigearthnet_s1/v2/2.0.0/train+validation" in page.text
    assert "2,000 steps epochs: 20.00 of 64" in page.text
    assert "loss 0.9876 at step 2,000; lowest 0.4321 at step 1,500" in page.text
    assert "explained 34.5 % at step 2,000; highest 45.6 % at step 1,000" in page.text
    assert "1,234 images/s" in page.text
    assert "237,871 records" in page.text
    assert "started 2026-11-22 15:40 UTC" in page.text
    assert "Checkpoints (median, longest): 3.250, 3.250 s to write." in page.text
    assert "truncated or invalid" in page.text
    assert "spatially dependent split" in page.notices[0]
    assert "Not finite (red crosses): loss at step 1,260." in page.notices


def test_the_time_of_the_steps_is_shared_out(page):
    """100 intervals of 20 steps: 600 s, 200 s, and 40 s in which was saved once."""
    assert "In 14.0 min of steps: computing 71.4 %, waiting for data 23.8 %, saving 4.8 %" in (
        page.text
    )
    assert "The slowest logged interval, 2.400 s per step, ends at step 1,000." in page.text


def test_the_weights_are_told_by_band_and_warned_of(page):
    assert page.row("weight_cv")[:2] == ["0.070", "0.028"]
    assert page.row("weight_p05")[:2] == ["1.250", "–"]
    assert page.row("loss_dark_share")[:2] == ["30.0 % → 20.0 %", "–"]
    (warning,) = (notice for notice in page.notices if "nearly constant" in notice)
    assert "0.028 in VV" in warning
    assert "VH" not in warning


def test_no_warning_where_weights_vary_or_are_constant_on_purpose(tmp_path):
    plain = {**RUN, "config": {**RUN["config"], "weighting": {"name": "none"}}}
    for number, (run, cv) in enumerate(((RUN, 0.031), (plain, 0.0), (RUN, None))):
        workdir = fill(tmp_path / str(number), run, [{"step": 0, "weight_cv/VV": cv}])
        assert "nearly constant:" not in Page(write_page(workdir)).text
    workdir = fill(tmp_path / "flat", RUN, [{"step": 0, "weight_cv/VV": 0.029}])
    assert "nearly constant:" in Page(write_page(workdir)).text


def test_all_that_is_needed_to_repeat_the_run_is_there(page):
    for name, value in (
        ("seed", "7"),
        ("batch_size", "2048"),
        ("total_steps", "None"),
        ("model.variant", "base"),
        ("optimizer.base_learning_rate", "0.00015"),
        ("weighting.clip", "None"),
        ("checksum", 32 * "3f"),
        ("git revision", "c1d2e3f with changes"),
        ("versions", "python 3.11.7, jax 0.10.3, flax 0.12.8"),
        ("seeds", "seed 7"),
        (
            "command",
            "python -m sar_mixmae_jax.main '--workdir=runs/a b' --config.epochs=80",
        ),
    ):
        assert page.row(name)[0] == value
    assert "-19.230912345, -12.5" in page.row("standardised with")[0]
    assert any("uncommitted changes" in notice for notice in page.notices)


def test_starts_are_compared(page):
    first, second, last = (row for row in page.rows if row[0] in ("0", "500", "1,000"))
    assert first[1:3] == ["2026-11-22 15:40 UTC", "b84dfbf000"]
    assert (first[-1], second[-1]) == ("–", "none")
    assert set(last[-1].split("; ")) == {
        "devices 8 → 4",
        "git b84dfbf000 → c1d2e3f with changes",
        "jax 0.10.2 → 0.10.3",
        "command with --config.epochs=80",
    }
    assert differences({"a": 1}, {"b": [1, 2]}) == ["a 1 → none", "b none → 1, 2"]


def drawn(monkeypatch, make) -> Figure:
    """The figure that a function makes, before it becomes pixels."""
    figures = []
    monkeypatch.setattr(plots, "figure_to_png", lambda figure: figures.append(figure) or b"")
    assert make() is not None
    return figures[0]


def verticals(axis) -> list[float]:
    return [x[0] for line in axis.lines if len(set(x := line.get_xdata())) == 1 and len(x) == 2]


@pytest.mark.parametrize("name", ["training", "throughput", "small_multiples"])
def test_every_axis_is_labelled_filled_and_shows_where_the_run_was_resumed(
    name, tmp_path, monkeypatch
):
    history = read_history(fill(tmp_path, metrics=lines()))
    metrics, again = history.metrics, history.resumed
    assert again == [500.0, 1000.0]
    make = {
        "training": lambda: plots.draw_training(metrics, again),
        "throughput": lambda: plots.draw_throughput(metrics, [*again, 9e9]),
        "small_multiples": lambda: plots.draw_small_multiples(
            metrics,
            ["explained_variance", "nothing", "loss_dark_share", "bias_db", "weight_cv"],
            again,
        ),
    }[name]
    figure = drawn(monkeypatch, make)
    assert len(figure.axes) == {"training": 3, "throughput": 2, "small_multiples": 4}[name]
    for axis in figure.axes:
        assert axis.get_ylabel() or axis.get_title(loc="left")
        assert axis.has_data()
        assert verticals(axis) == again
    assert figure.axes[-1].get_xlabel() == "step"
    if name == "training":
        assert figure.axes[0].get_xscale() == "log"
        assert [
            line.get_xdata().tolist() for line in figure.axes[0].lines if line.get_marker() == "x"
        ] == [[1260]]
    if name == "throughput":
        assert figure.axes[0].get_ylabel() == "images/s"
        assert figure.axes[1].get_ylabel() == "ms per step"
        assert figure.axes[1].get_ylim()[1] < 1000  # one slow interval does not set the scale


def test_the_areas_of_a_step_are_those_of_its_parts():
    parts = {
        "seconds/a": Series(np.array([20.0, 30.0]), np.array([1.0, 2.0])),
        "seconds/b": Series(np.array([30.0]), np.array([5.0])),
    }
    edges, values = plots.step_times(parts)
    assert edges.tolist() == [0, 20, 30]
    assert values.tolist() == [[1, 2], [0, 5]]


def test_metrics_that_nobody_knows_are_shown_too(tmp_path):
    metrics = [
        {"step": step, "accuracy": 0.5 + value, "iou/$\\frac$": value, "note": "text", "on": True}
        for step, value in ((10, 0.1), (20, 0.3), (30, 0.2))
    ]
    page = Page(write_page(fill(tmp_path, metrics=metrics)))
    assert page.row("accuracy") == ["0.7000", "30", "0.6000", "10", "0.8000", "20"]
    assert page.row("iou/$\\frac$")[0] == "0.2000"
    assert len(page.images()) == 1
    assert not any(row[0] in ("note", "on") for row in page.rows)


def test_metrics_of_many_classes_do_not_bury_the_curves(tmp_path, monkeypatch):
    metrics = [
        {"step": step, **{f"iou/{number}": 1.0 for number in range(19)}} for step in (10, 20)
    ]
    history = read_history(fill(tmp_path, metrics=metrics))
    figure = drawn(monkeypatch, lambda: plots.draw_small_multiples(history.metrics, ["iou"], []))
    (axis,) = figure.axes
    assert axis.get_legend() is None
    assert axis.get_title(loc="left") == "iou: 19 lines"
    assert len(axis.lines) == 19


def test_nothing_in_the_files_becomes_markup(tmp_path):
    def spoilt(value):
        if isinstance(value, dict):
            return {f"{name}": spoilt(one) for name, one in value.items()} | {HOSTILE: HOSTILE}
        if isinstance(value, list):
            return [*map(spoilt, value), HOSTILE]
        return f"{value}{HOSTILE}" if isinstance(value, str) else value

    run = spoilt(RUN)
    run["starts"].pop()  # text instead of a start
    metrics = [{"step": s, HOSTILE: s, f"weight_cv/{HOSTILE}": 0.01, "loss": s} for s in (1, 2)]
    workdir = fill(tmp_path, run, metrics)
    (workdir / "<script>.png").write_bytes(b"<script>")
    page = Page(write_page(workdir))
    assert not {"script", "b onerror"} & {tag for tag, _ in page.elements}
    known = {"lang", "charset", "name", "content", "class", "alt", "src"}
    assert {name for _, attrs in page.elements for name in attrs} <= known
    assert page.text.count("<script>alert(1)</script>") > 30
    assert "\x1b" not in page.text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "metrics.jsonl is missing"),
        ("", "No curve (fewer than two finite values): loss, gradient_norm, learning_rate."),
        (
            "[1]\nnull\n{\n",
            "3 lines of metrics.jsonl are truncated or invalid and were skipped: 1, 2, 3.",
        ),
        ('{"step": -1}\n{"step": NaN}\n{"step": true, "loss": 1}', "3 lines of metrics.jsonl"),
        ('{"step": 5, "loss": 1.5}\n', "loss 1.5000 at step 5"),
        ('{"step": 0, "loss": 0}\n{"step": 1, "loss": 0, "images_per_second": 0}', "loss 0.0000"),
        ('{"step": 1, "loss": null}\n{"step": 2, "loss": Infinity}', "loss at step 1, 2"),
        (f'{{"step": 1, "loss": 1{400 * "0"}}}\n', "loss at step 1."),
        ('{"step": 1, "seconds/compute": 0}\n{"step": 2, "seconds/compute": 0}', "computing 0.0"),
        ('{"step": 3, "seconds": 1}\n{"step": 3, "seconds": 2, "loss": "a"}', "3 steps"),
    ],
)
def test_metrics_that_lack_or_are_broken_leave_a_sentence(content, sentence, tmp_path):
    workdir = fill(tmp_path)
    if content is not None:
        (workdir / "metrics.jsonl").write_text(content)
    assert sentence in Page(write_page(workdir)).text


def test_pictures_that_lack_or_are_broken_leave_a_sentence(tmp_path):
    workdir = fill(tmp_path)
    assert "Missing: reconstruction.png." in Page(write_page(workdir)).text
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(
        buffer, "PNG"
    )
    for broken in (b"", b"no picture", buffer.getvalue()[:700], buffer.getvalue()[:30]):
        (workdir / "reconstruction.png").write_bytes(broken)
        page = Page(write_page(workdir))
        assert "reconstruction.png cannot be shown" in page.text
        assert not page.images()


def test_what_a_record_does_not_say_is_not_known(tmp_path):
    run = {"config": {}, "dataset": {"caveats": None, "statistics": None}, "starts": [{}, {}]}
    page = Page(write_page(fill(tmp_path, run, [{"step": 1, "loss": 1}])))
    assert "A model on an unnamed dataset" in page.text
    assert page.row("git revision") == ["unknown"]
    assert page.row("checksum") == ["none"]
    assert "The configuration is empty." in page.text
    run["starts"] = []
    assert "No start was recorded." in Page(write_page(fill(tmp_path, run))).text


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"config": {}}', "\x00", 9999 * "["])
def test_without_its_record_a_run_has_no_page(content, tmp_path):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    (tmp_path / "summary.html").write_text("the old one")
    with pytest.raises(InputError, match=r"run\.json (not found|cannot be read)"):
        write_page(tmp_path)
    assert (tmp_path / "summary.html").read_text() == "the old one"


def test_of_a_step_logged_twice_the_last_counts_and_steps_ascend(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 30, "a": 1}\n{"step": 10, "a": 2}\n\n{"step": 30, "a": 3, "b": null}')
    metrics, problems = read_series(path)
    assert metrics["a"].steps.tolist() == [10, 30]
    assert metrics["a"].values.tolist() == [2, 3]
    assert np.isnan(metrics["b"].values).tolist() == [True]
    assert not problems


def test_the_command_names_the_page_or_says_in_one_line_what_is_wrong(tmp_path, capsys):
    main(["summary", str(fill(tmp_path / "run"))])
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "summary.html")
    for arguments, told in (
        ([], "found the arguments [], expected WORKDIR"),
        (["a", "b"], "expected WORKDIR"),
        ([str(tmp_path / "none")], "give the workdir of a run"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["summary", *arguments])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.match(r"error: .*", line)
        assert told in line
