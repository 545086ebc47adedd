"""The section about where the encoder of a model is from."""

from typing import Any

from sar_mixmae_jax.summary import wording
from sar_mixmae_jax.summary.history import History
from sar_mixmae_jax.summary.markup import Markup, join, note, notice, section, table, tag

ENOUGH = 5
"""Encoders, each of which was the start of the one before."""


def origin(run: History) -> Markup:
    """Dataset, weighting, step, caveats; nothing for a run that does not ask for an encoder."""
    if "pretrained" not in run.model:
        return Markup()
    heading, found = "Origin of the encoder", run.model["pretrained"]
    if not isinstance(found, dict):
        return section(heading, note("Random: it was not pretrained."))
    parts: list[Markup] = []
    while isinstance(found, dict) and len(parts) < 2 * ENOUGH:
        parts += [note("It began with this one:") if parts else Markup(), _one(found)]
        found = found.get("pretrained")
    return section(heading, *parts, style="whole")


def encoder(run: History) -> str:
    """The encoder in a few words, for titles."""
    variant = wording.value(run.model.get("variant") or "")
    found = run.model.get("pretrained")
    if not isinstance(found, dict):
        return " ".join(f"a random {variant} encoder".split())
    name = _weighting(found.get("weighting"))[0]
    weights = f", weighting {name}" if name else ""
    return f"{variant or 'encoder'} of step {_known(found, 'step')}{weights}"


def _one(found: dict[str, Any]) -> Markup:
    """What is known of an encoder."""
    caveats = found.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    name, settings = _weighting(found.get("weighting"))
    told = f"{name} ({settings})" if settings else name
    rows = [
        ("checkpoint", tag("code", _known(found, "checkpoint"))),
        ("trained by", f"{_known(found, 'program')}, step {_known(found, 'step')}"),
        ("on", _known(found, "dataset")),
        ("checksum", tag("code", _known(found, "dataset_checksum"))),
        ("loss weights", told or "none"),
        ("seed", _known(found, "seed")),
        ("SHA-256 of its last norm", tag("code", _known(found, "sha256"))),
    ]
    return join(
        *(notice(f"Caveat of its training: {wording.value(caveat)}") for caveat in caveats),
        table((), rows),
    )


def _weighting(found: Any) -> tuple[str, str]:
    """Name and settings of loss weights; "" where there were none."""
    if not isinstance(found, dict):
        return "", ""
    settings = [f"{name} {wording.value(found[name])}" for name in found if name != "name"]
    return _known(found, "name"), ", ".join(settings)


def _known(found: dict[str, Any], name: str) -> str:
    return "not known" if found.get(name) is None else wording.value(found[name])
