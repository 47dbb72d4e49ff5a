"""The card of a folder: a ``README.md`` that describes its content, with front matter for the Hugging Face Hub.

The card states what the model and its provenance state, and nothing else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from proxsae.data.files import replacing
from proxsae.formats.files import one_line
from proxsae.formats.parts import FORMULAS, Parts
from proxsae.formats.places import hook_in
from proxsae.formats.registry import Format
from proxsae.formulas.arrays import dtype_name

NAME = "README.md"
TAG = "proxsae"
ACTIVATIONS = {
    "relu": "ReLU",
    "jumprelu": "JumpReLU, a threshold an atom",
    "topk": "TopK, then ReLU",
    "abstopk": "AbsTopK, codes of both signs",
}
TOLD = {  # of provenance
    "model": "language model",
    "site": "place in it",
    "hook": "place in it, for TransformerLens",
    "normalised_rows": "normalisation of each row before the encoder",
    "target_site": "place that codes decode to",
    "tokenizer": "tokenizer",
    "text": "text",
    "context_length": "tokens in a context",
    "drop": "positions dropped: the rule",
    "dropped_positions": "positions dropped",
    "tokens_seen": "tokens seen in training, repeats included",
}


def write_card(folder: Path, sae: Any, format: Format, parts: Parts) -> None:  # noqa: A002
    """Write the card of a folder; a card that somebody else wrote stays."""
    path = folder / NAME
    if path.exists() and f"\n- {TAG}\n" not in path.read_text(encoding="utf-8", errors="replace"):
        return
    with replacing(path) as temporary:
        temporary.write_text(_card(sae, format, parts), encoding="utf-8")


def _card(sae: Any, format: Format, parts: Parts) -> str:  # noqa: A002
    told = {**sae.provenance_, "hook": hook_in(sae.provenance_)}
    kind = "transcoder" if parts.is_transcoder else "sparse autoencoder"
    where = f" of `{_plain(told['site'])}`" if "site" in told else ""
    model = f" of {_plain(told['model'])}" if "model" in told else ""
    rows = {
        "regularizer R": sae.regularizer_,
        "features": sae.n_features_in_,
        "atoms": len(sae.components_),
        "numbers": dtype_name(parts.atoms),
        f"here, for {format.library}": _as_written(sae, parts),
        **{name: told[field] for field, name in TOLD.items() if told.get(field) is not None},
    }
    table = "\n".join(f"| {name} | {_plain(value)} |" for name, value in rows.items())
    skip = " + x S" if parts.skip is not None else ""
    library = f"\n```python\n{format.loads}\n```\n" if format.loads else ""
    return f"""{_front_matter(format, told)}
# A {kind}{where}{model}

The codes of an activation x are z = prox_R(x W^T + b_e), and decode to z D + b{skip}.

| | |
|---|---|
{table}

```python
from proxsae.formats import load

sae = load("hf://OWNER/REPOSITORY")  # or the path of the folder
```
{library}"""


def _front_matter(format: Format, told: dict[str, Any]) -> str:  # noqa: A002
    lines = ["---", f"library_name: {format.name}", "tags:", "- sparse-autoencoder", f"- {TAG}"]
    model = told.get("model")
    if isinstance(model, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model):  # as the Hub names models
        lines.append(f"base_model: {json.dumps(model)}")
    return "\n".join([*lines, "---", ""])


def _as_written(sae: Any, parts: Parts) -> str:
    k = "" if parts.k is None else f", k = {parts.k}"
    text = f"{ACTIVATIONS[parts.activation]}{k}"
    if len(parts.atoms) != len(sae.components_):
        text += f"; {len(parts.atoms)} atoms, each once with either sign"
    return text if parts.rows == "raw" else f"{text}; of rows normalised first: {FORMULAS[parts.rows]}"


def _plain(value: Any) -> str:
    """Return a text in one line that stays in its cell of the table."""
    return re.sub(r"[`|\\\s]+", " ", one_line(str(value)))
