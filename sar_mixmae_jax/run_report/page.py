"""The page: `write(workdir)`, from the files of a run to `summary.html`.

It is made from what the run wrote and from nothing else, so that it can be made again at any time,
also of a run that still goes on.
"""

from pathlib import Path

from matplotlib.image import imread

from sar_mixmae_jax.run_report import diagnostics, evaluations, html, reproduce, sections
from sar_mixmae_jax.run_report.history import History, read_history
from sar_mixmae_jax.run_report.html import Markup, join, note, section
from sar_mixmae_jax.run_report.plots import stem
from sar_mixmae_jax.utils.errors import first_line
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors

MOST_PICTURES = 4


def write_page(workdir: Path) -> Path:
    """Writes one page about a run, for a screen and for a few sides of A4.

    Args:
      workdir: of the run; only its `run.json` must be there.

    Returns:
      The path of the page.

    Raises:
      InputError: `run.json` cannot be read, or the page cannot be written.
    """
    run = read_history(workdir)
    shown = (
        sections.header_section(run, workdir),
        sections.training_section(run),
        evaluations.validation(run, workdir),
        evaluations.evaluations(workdir),
        sections.initialisation_section(run),
        sections.speed_section(run),
        diagnostics.weights(run),
        diagnostics.others(run),
        pictures(run, workdir),
        reproduce.ingredients(run),
        reproduce.starts(run),
    )
    content = html.document(sections.title(run), *shown)
    path = workdir / "summary.html"
    with report_write_errors(path):
        atomic_write(path, content.encode())
    return path


def expected_pictures(run: History) -> list[str]:
    """The pictures that such a run draws of its model."""
    drawn = {
        "reconstruction.png": "weighting" in run.config,
        "validation.png": any(stem(name) == "validation" for name in run.metrics),
    }
    return [name for name, is_drawn in drawn.items() if is_drawn]


def pictures(run: History, workdir: Path) -> Markup:
    """The last picture of the model, and others that lie beside it."""
    expected = expected_pictures(run)
    paths = sorted(workdir.glob("*.png"), key=lambda path: (path.name not in expected, path.name))
    names = [path.name for path in paths]
    missing = [name for name in expected if name not in names]
    if not paths and not missing:
        return Markup()
    more = names[MOST_PICTURES:]
    return section(
        "Pictures",
        note(f"There is no {', no '.join(missing)}." if missing else ""),
        *map(_picture, paths[:MOST_PICTURES]),
        note(f"Not shown: {', '.join(more)}." if more else ""),
        style="sheet" if paths else "",
    )


def _picture(path: Path) -> Markup:
    """A PNG with its name, or a sentence if it is none."""
    try:
        height, width = imread(path).shape[:2]
        return join(
            note(path.name),
            html.picture(path.read_bytes(), path.name, "tall" if height > width else ""),
        )
    except (OSError, SyntaxError, ValueError) as error:  # so does PIL say that it is no PNG
        return note(f"{path.name} cannot be shown ({first_line(error)}).")
