"""The page: `write(workdir)`, from the files of a run to `summary.html`.

It is made from what the run wrote and from nothing else, so that it can be made again at any time,
also of a run that still goes on.
"""

from pathlib import Path

from matplotlib.image import imread

from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.files import write_whole
from sar_mixmae_jax.summary import diagnoses, markup, repeat, results
from sar_mixmae_jax.summary.history import read
from sar_mixmae_jax.summary.markup import Markup, join, note, section

LAST = "reconstruction.png"
MOST_PICTURES = 4


def write(workdir: Path) -> Path:
    """Writes one page about a run, for a screen and for two sides of A4.

    Args:
      workdir: of the run; only its `run.json` must be there.

    Returns:
      The path of the page.

    Raises:
      InputError: `run.json` cannot be read, or the page cannot be written.
    """
    run = read(workdir)
    sections = (results.head, results.training, results.speed, diagnoses.weights, diagnoses.others)
    result = join(*(one(run) for one in sections))
    made_of = join(repeat.ingredients(run), repeat.starts(run))
    content = markup.document(results.title(run), result, pictures(workdir), made_of)
    path = workdir / "summary.html"
    try:
        write_whole(path, content.encode())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({first_line(error)}): check the folder and the disk"
        ) from error
    return path


def pictures(workdir: Path) -> Markup:
    """The last picture of the model, and others that lie beside it."""
    paths = sorted(workdir.glob("*.png"), key=lambda path: (path.name != LAST, path.name))
    more = [path.name for path in paths[MOST_PICTURES:]]
    return section(
        "Pictures",
        "" if workdir / LAST in paths else note(f"There is no {LAST}."),
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
