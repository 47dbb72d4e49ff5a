"""Files on the Hugging Face Hub: ``hf://owner/repository/path``, or ``hf://owner/repository@revision/path``."""

from __future__ import annotations

import re
from pathlib import Path

from proxsae.formats.registry import formats

PREFIX = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?((?:/[^/@*?[]+)*)/?")


def fetched(name: str) -> Path:
    """Return the local copy of a file or folder; only the files that a format reads are downloaded.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        If the name is none, nothing is there, or it cannot be fetched; the sentence says the name.
    """
    match = _NAME.fullmatch(name)
    inside = match[3].strip("/") if match else ""
    if match is None or any(part in (".", "..") for part in inside.split("/")):
        raise ValueError(f"{name!r} is no place on the Hub, which is hf://owner/repository/path")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(f"{name} needs the package huggingface_hub") from None
    prefix = f"{inside}/" if inside else ""
    wanted = [f"{prefix}{file}" for one in formats().values() for file in one.files] + ([inside] if inside else [])
    try:
        snapshot = snapshot_download(match[1], revision=match[2], allow_patterns=wanted)
    except Exception as error:  # of the network, the Hub and the cache, in a dozen types
        sentence = " ".join(str(error).split())
        raise FileNotFoundError(f"{name} cannot be fetched: {sentence[:300] or type(error).__name__}") from None
    path = Path(snapshot) / inside
    if not path.exists():
        raise FileNotFoundError(f"{name}: the repository has no such file or folder that a format reads")
    return path
