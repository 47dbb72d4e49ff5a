"""The names of sites in TransformerLens, and in the libraries that follow it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

UNKNOWN = "unknown"  # a hook, where a format must have one and nothing is known

_NAMES = {
    "block": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_in": "mlp.hook_in",
    "mlp_hidden": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
}
# What a module itself returns. In Gemma 2, 3 and 3n a norm follows, behind which hook_attn_out and hook_mlp_out are.
_RETURNED = {"attn_out": "attn.hook_out", "mlp_out": "mlp.hook_out"}
# In the type of a model, such as gemma3_text, or anywhere in its path, but not in gemma-2b. For gpt2 in a folder called
# gemma-2 the names of what a module returns are right as well.
_NORM_FOLLOWS = re.compile(r"gemma-?[23]n?(?![^\W_])", re.IGNORECASE)
_HOOK = re.compile(r"blocks\.(\d{1,6})\.((?:\w+\.)?hook_\w+)")


def hook_of(site: str, model: Any = None) -> str:
    """Return ``blocks.14.hook_resid_post`` for ``block.15`` of a model, given by its type or name.

    What is no site of ours is returned unchanged.
    """
    what, _, number = site.partition(".")
    if site == "embed":
        return "blocks.0.hook_resid_pre"
    names = _names(model)
    return f"blocks.{int(number) - 1}.{names[what]}" if what in names and number.isdecimal() else site


def hook_in(provenance: Mapping[str, Any], of: Literal["", "target_"] = "") -> str | None:
    """Return the hook of a place, or of that of the targets, of which a provenance tells as a site or as a hook."""
    site, hook = provenance.get(f"{of}site"), provenance.get(f"{of}hook")
    model = provenance.get("model_type") or provenance.get("model")
    return hook_of(str(site), model) if site is not None else known_hook(hook)


def known_hook(hook: Any) -> str | None:
    """Return a hook, or None for a text that is no hook."""
    return hook if isinstance(hook, str) and hook != UNKNOWN else None


def site_of(hook: str, model: Any = None) -> str | None:
    """Return ``block.15`` for ``blocks.14.hook_resid_post`` of a model, None for a hook that is no site of ours."""
    match = _HOOK.fullmatch(hook)
    if match is None:
        return None
    block, name = int(match[1]), match[2]
    if name == "hook_resid_pre":
        return f"block.{block}" if block else "embed"
    names = [*_names(model).items(), *_RETURNED.items()]
    return next((f"{what}.{block + 1}" for what, its_name in names if its_name == name), None)


def is_side_by_side(site: Any) -> bool:
    """Whether a provenance names several places."""
    return " " in str(site)


def _names(model: Any) -> dict[str, str]:
    """Return the hooks of a model, of which nothing may be known."""
    return _NAMES | _RETURNED if isinstance(model, str) and _NORM_FOLLOWS.search(model) else _NAMES
