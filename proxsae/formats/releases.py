"""The names ``release/id`` that SAELens gives to published autoencoders, by the table in its package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from proxsae.formats.files import one_line
from proxsae.formats.hub import PREFIX

TABLE = "pretrained_saes.yaml"


@dataclass(frozen=True)
class Release:
    """The entry of an autoencoder in that table.

    Attributes
    ----------
    place : str
        The place on the Hub, ``hf://owner/repository/path``.
    model : str
        The language model.
    scale : float or None
        The factor of the rows, where the file says that they are scaled but not by how much.
    """

    place: str
    model: str
    scale: float | None


def released(name: str) -> Release:
    """Return the entry of the table of SAELens for a name that is no file.

    Raises
    ------
    FileNotFoundError
        If there is no such name, or no table to look it up in; one sentence.
    """
    release, _, sae_id = name.partition("/")
    if not sae_id or release in ("", ".", "..", "~"):
        raise FileNotFoundError(f"no file at {name}")
    table = _table()
    if table is None:
        raise FileNotFoundError(
            f"no file at {name}; if it is a release of SAELens, the package sae-lens is needed, which has their table"
        )
    if release not in table:
        raise FileNotFoundError(f"no file at {name}, nor a release of SAELens called {one_line(release)!r}")
    found = table[release]
    entries = {str(one["id"]): one for one in found["saes"]}
    if sae_id not in entries:
        some = ", ".join(list(entries)[:5])
        raise FileNotFoundError(f"the release {release} of SAELens has no {one_line(sae_id)!r}; it has {some}, ...")
    if normalised := (found.get("config_overrides") or {}).get("normalize_activations"):
        raise FileNotFoundError(f"{name} is for rows normalised by {normalised!r}, which its file does not say")
    entry = entries[sae_id]
    return Release(f"{PREFIX}{found['repo_id']}/{entry['path']}", found["model"], entry.get("norm_scaling_factor"))


@cache
def _read(path: Path) -> dict[str, Any]:
    import yaml  # which sae-lens needs as well

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 (both are safe)
    return table


def _table() -> dict[str, Any] | None:
    """Return the table by release, None without SAELens; the package is not imported, which takes long."""
    spec = importlib.util.find_spec("sae_lens")
    folders = (spec.submodule_search_locations if spec else None) or ()
    path = next((path for folder in folders if (path := Path(folder, TABLE)).is_file()), None)
    return None if path is None else _read(path)
