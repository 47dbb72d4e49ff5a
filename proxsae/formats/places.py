"""The names of sites in TransformerLens, and in the libraries that follow it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNKNOWN = "unknown"  # a hook, where a format must have one and nothing is known

_NAMES = {
    "block": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_in": "ln2.hook_normalized",
    "mlp_hidden": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
}
_HOOK = re.compile(r"blocks\.(\d{1,6})\.((?:\w+\.)?hook_\w+)")


def hook_of(site: str) -> str:
    """Return ``blocks.14.hook_resid_post`` for ``block.15``; what is no site of ours, unchanged."""
    what, _, number = site.partition(".")
    if site == "embed":
        return "blocks.0.hook_resid_pre"
    return f"blocks.{int(number) - 1}.{_NAMES[what]}" if what in _NAMES and number.isdecimal() else site


def hook_in(provenance: Mapping[str, Any]) -> str | None:
    """Return the hook of a place that an autoencoder tells of, as a site of ours or as a hook."""
    site, hook = provenance.get("site"), provenance.get("hook")
    return hook_of(str(site)) if site is not None else known_hook(hook)


def known_hook(hook: Any) -> str | None:
    """Return a hook, or None for a text that is no hook."""
    return hook if isinstance(hook, str) and hook != UNKNOWN else None


def site_of(hook: str) -> str | None:
    """Return ``block.15`` for ``blocks.14.hook_resid_post``, None for a hook that is no site of ours."""
    match = _HOOK.fullmatch(hook)
    if match is None:
        return None
    block, name = int(match[1]), match[2]
    if name == "hook_resid_pre":
        return f"block.{block}" if block else "embed"
    return next((f"{what}.{block + 1}" for what, its_name in _NAMES.items() if its_name == name), None)
