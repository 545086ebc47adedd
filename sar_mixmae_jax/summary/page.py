"""The page: `write(workdir)`, from the files of a run to `summary.html`.

It is made from what the run wrote and from nothing else, so that it can be made again at any time,
also of a run that still goes on.
"""

from pathlib import Path

from matplotlib.image import imread

from sar_mixmae_jax.errors import first_line
from sar_mixmae_jax.files import write_whole, writing
from sar_mixmae_jax.summary import (
    diagnoses,
    evaluations,
    head,
    markup,
    origin,
    repeat,
    results,
    scores,
)
from sar_mixmae_jax.summary.axes import stem
from sar_mixmae_jax.summary.history import History, read
from sar_mixmae_jax.summary.markup import Markup, join, note, section

MOST_PICTURES = 4


def write(workdir: Path) -> Path:
    """Writes one page about a run, for a screen and for a few sides of A4.

    Args:
      workdir: of the run; only its `run.json` must be there.

    Returns:
      The path of the page.

    Raises:
      InputError: `run.json` cannot be read, or the page cannot be written.
    """
    run = read(workdir)
    sections = (
        head.head(run, workdir),
        results.training(run),
        scores.validation(run, workdir),
        evaluations.evaluations(workdir),
        origin.origin(run),
        results.speed(run),
        diagnoses.weights(run),
        diagnoses.others(run),
        pictures(run, workdir),
        repeat.ingredients(run),
        repeat.starts(run),
    )
    content = markup.document(head.title(run), *sections)
    path = workdir / "summary.html"
    with writing(path):
        write_whole(path, content.encode())
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
            markup.picture(path.read_bytes(), path.name, "tall" if height > width else ""),
        )
    except (OSError, SyntaxError, ValueError) as error:  # so does PIL say that it is no PNG
        return note(f"{path.name} cannot be shown ({first_line(error)}).")
