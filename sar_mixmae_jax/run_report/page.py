"""Rendering of the summary page of a run.

The page depends only on the files of the run, so it can be written again at any time, also while
the run continues.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.image import imread

from sar_mixmae_jax.run_report import evaluations, reproduce, sections, weighting_section
from sar_mixmae_jax.run_report.content import Block, Figure, Section, make_section, note
from sar_mixmae_jax.run_report.history import History, read_history, stem
from sar_mixmae_jax.training.finetune import ValidationEvaluator
from sar_mixmae_jax.training.reconstruction_evaluator import ReconstructionEvaluator
from sar_mixmae_jax.utils.errors import escape_unprintable, first_line
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors

PAGE, TEMPLATE = "summary.html", "page.html.j2"

MAX_PICTURES = 4
"""Pictures in a workdir that are shown."""


def write_page(workdir: Path) -> Path:
    """Write the summary page of a run, for a screen and for a few sheets of A4.

    Args:
      workdir: working directory of the run; only its `run.json` is required.

    Returns:
      Path of the page.

    Raises:
      InputError: `run.json` cannot be read, or the page cannot be written.
    """
    run = read_history(workdir)
    content = (
        sections.training_section(run),
        evaluations.validation_section(run, workdir),
        evaluations.evaluation_section(workdir),
        sections.initialisation_section(run),
        sections.speed_section(run),
        weighting_section.weighting_section(run),
        sections.other_metrics_section(run),
        pictures_section(run, workdir),
        *reproduce.reproduction_sections(run),
        reproduce.starts_section(run),
    )
    html = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            header=sections.make_header(run, workdir),
            sections=[section for section in content if section is not None],
        )
    )
    path = workdir / PAGE
    with report_write_errors(path):
        atomic_write(path, html.encode())
    return path


def pictures_section(run: History, workdir: Path) -> Section | None:
    """Return the newest pictures that training drew, and other PNG files in the workdir."""
    expected = _expected_pictures(run)
    paths = sorted(workdir.glob("*.png"), key=lambda path: (path.name not in expected, path.name))
    names = [path.name for path in paths]
    missing = [name for name in expected if name not in names]
    if not paths and not missing:
        return None
    return make_section(
        "Pictures",
        note(f"Missing: {', '.join(missing)}." if missing else ""),
        *(block for path in paths[:MAX_PICTURES] for block in _picture(path)),
        note(f"Not shown: {', '.join(names[MAX_PICTURES:])}." if len(names) > MAX_PICTURES else ""),
        style="sheet" if paths else "",
    )


def _expected_pictures(run: History) -> list[str]:
    """Return the names of the pictures that the evaluator of such a run draws."""
    drawn = {
        ReconstructionEvaluator.picture: run.is_pretraining
        and run.config.get("picture_patches") != 0,
        ValidationEvaluator.picture: any(stem(name) == "validation" for name in run.metrics),
    }
    return [name for name, is_drawn in drawn.items() if is_drawn]


def _picture(path: Path) -> list[Block]:
    """Return a PNG with its name, or a sentence if it cannot be decoded."""
    try:
        height, width = imread(path).shape[:2]
        figure = Figure(path.read_bytes(), path.name, "tall" if height > width else "")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for bad PNGs
        return [*filter(None, [note(f"{path.name} cannot be shown ({first_line(error)}).")])]
    return [*filter(None, [note(path.name)]), figure]


def _environment() -> Environment:
    """Return the template environment: everything is escaped, and a missing name is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_escape_control_characters,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _escape_control_characters(value: Any) -> Any:
    """Replace characters that HTML cannot hold; output of macros (`Markup`) already is escaped."""
    return value if isinstance(value, Markup) else escape_unprintable(str(value))
