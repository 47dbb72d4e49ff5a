"""From files to fitted models and back, in any format."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from proxsae.formats.card import write_card
from proxsae.formats.doubling import encoder_and_atoms
from proxsae.formats.files import is_ours
from proxsae.formats.hub import PREFIX, fetched
from proxsae.formats.parts import FORMULAS, Parts
from proxsae.formats.registry import Format, formats
from proxsae.formats.releases import released
from proxsae.formats.with_regularizer import encoder_with, stated_parts
from proxsae.formats.without_prox import CANNOT, SAEWithoutProx
from proxsae.regularizers import Regularizer, parse

if TYPE_CHECKING:
    from torch import Tensor

    from proxsae.encoders import Amortized
    from proxsae.estimator import ProxSAE

OURS = "proxsae"
_ELSEWHERE = "give another folder"


def load(
    path: str | os.PathLike[str],
    format: str = "auto",  # noqa: A002
    regularizer: Regularizer | str | None = None,
) -> ProxSAE | SAEWithoutProx:
    r"""Return a sparse autoencoder of any library as a fitted model.

    The codes and reconstructions are those of the library, up to rounding. ``regularizer_`` is the R whose prox the
    activation is: i{z >= 0} for ReLU, :math:`\frac12\theta^2\|z\|_0` + i{z >= 0} for JumpReLU and gated, at most k
    non-zeros for TopK. A ReLU autoencoder that was trained with a weight of L1 has that weight in its bias, where no
    file says it: give `regularizer`, and the codes stay what they are.

    Where a library normalises each row by itself first, a warning says so: the model is for normalised rows.

    A model with 2p atoms whose second half is exactly the negative of the first, see :func:`save`, is returned as a
    signed model with p atoms.

    Parameters
    ----------
    path : path
        A file or folder, or one on the Hub, ``"hf://owner/repository/path"``. Or the name of a release and an id in it
        as SAELens has them, ``"gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical"``, where it is installed.
    format : str, default "auto"
        "proxsae" or the name of another format; "auto" knows our files by their header, others by their names.
    regularizer : Regularizer or str, optional
        R, such as ``"0.1*L1 + NonNegative"``; its prox must be the activation of the file up to scale and bias. None:
        the R that :func:`save` noted, where the file has it and it fits, else the plainest.

    Returns
    -------
    ProxSAE
        In float32, or float64 where the file is; half precision is exact in float32. ``provenance_`` is what the file
        says of its activations. A :class:`SAEWithoutProx`, with a warning, where the activation is no prox.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, damaged, contradicts itself, or holds what is no autoencoder with an activation that is
        known; the sentence names the file and the field.
    """
    from proxsae.estimator import ProxSAE

    name = os.fspath(path)
    if not name:
        raise ValueError("the name of the file to load is empty")
    release = None
    if not name.startswith(PREFIX) and not Path(name).expanduser().exists():
        release = released(name)
        name = release.place
    where = fetched(name) if name.startswith(PREFIX) else Path(name).expanduser()
    chosen = _format_of(where) if format == "auto" else format_named(format)
    if chosen is None:
        if regularizer is not None:
            raise ValueError(f"{where} is a file of proxsae, which says its own regularizer")
        try:
            return ProxSAE.load(where)
        except ValueError as error:
            raise ValueError(f"{error}{_of_folder(where)}") from None
    parts = chosen.read(where)
    if parts.unscaled and release is not None and release.scale is not None:
        parts = parts.of_scaled_rows(release.scale)
    if parts.unscaled:
        warnings.warn(
            f"{where} says that rows are normalised, by {parts.unscaled!r}, and not by which factors: they are taken "
            "as they are, as SAELens does",
            stacklevel=2,
        )
    if field := parts.overflow():
        raise ValueError(f"{where}: the {field} leaves the range of numbers once what the file says is folded into it")
    sae: ProxSAE | SAEWithoutProx
    if parts.activation == "topk_without_relu":
        if regularizer is not None:
            raise ValueError(f"{where} holds an activation that is the prox of no R, {regularizer} included")
        sae = SAEWithoutProx.of(parts)
        warnings.warn(f"{where}: its activation, {parts.activation!r}, is the prox of no R: {CANNOT}", stacklevel=2)
    else:
        encoder, atoms = _with_regularizer(parts, regularizer, where)
        sae = ProxSAE.from_parts(atoms, parts.intercept, encoder, parts.skip, is_transcoder=parts.is_transcoder)
    sae.provenance_ = ({} if release is None else {"model": release.model}) | parts.provenance
    if parts.rows != "raw":
        sae.provenance_ |= {"normalised_rows": parts.rows}
        warnings.warn(
            f"{where} is for rows that are normalised first, each by itself, which no prox does: its codes and "
            f"reconstructions are those of {FORMULAS[parts.rows]}",
            stacklevel=2,
        )
    return sae


def save(
    sae: ProxSAE | SAEWithoutProx,
    path: str | os.PathLike[str],
    format: str = OURS,  # noqa: A002
    signed: Literal["double", "native"] = "double",
) -> None:
    """Write a fitted model in a format, to a file or a folder as the format requires; a folder also gets a card.

    Parameters
    ----------
    sae : ProxSAE or SAEWithoutProx
    path : path
    format : str, default "proxsae"
        The name of a format; only "proxsae" keeps an R with arrays, the encoder's options and the history.
    signed : {"double", "native"}, default "double"
        Where codes have both signs: write 2p atoms [D; -D] with non-negative codes, which every library takes; or
        signed codes, where the format has AbsTopK.

    Raises
    ------
    ValueError
        If the format has no such encoder or activation, or the folder holds a model of another format.
    OSError
        If the file cannot be written.
    """
    from sklearn.utils.validation import check_is_fitted

    if signed not in ("double", "native"):
        raise ValueError(f'signed must be "double" or "native", got {signed!r}')
    chosen = format_named(format)
    if isinstance(sae, SAEWithoutProx):
        if chosen is None:
            raise ValueError(f"a file of proxsae holds an R, and {type(sae.encoder_).__name__} is the prox of none")
        parts = sae.parts()
    else:
        check_is_fitted(sae)
        if chosen is None:
            sae.save(path)
            return
        parts = stated_parts(sae, signed)
    chosen.check_written(parts)
    where = Path(path).expanduser()
    check_folder(where, chosen)
    chosen.write(where, parts)
    if where.is_dir():
        write_card(where, sae, chosen, parts)


def _with_regularizer(parts: Parts, given: Regularizer | str | None, where: Path) -> tuple[Amortized, Tensor]:
    """Return encoder and D with the given R, or that of the file if it fits, or the simplest R."""
    if given is not None:
        R = parse(given) if isinstance(given, str) else given
        try:
            return encoder_with(R, parts)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if parts.regularizer is not None:
        with suppress(ValueError, TypeError):  # another library may have trained on
            return encoder_with(parse(parts.regularizer), parts)
    return encoder_and_atoms(parts)


def format_named(name: str) -> Format | None:
    """Return the format of a name, None for ours; ValueError where there is none of that name."""
    if name == OURS:
        return None
    if not isinstance(name, str) or name not in formats():
        raise ValueError(f"format must be one of {', '.join([OURS, *formats()])}, got {name!r}")
    return formats()[name]


def check_folder(folder: Path, chosen: Format) -> None:
    """Raise ValueError where a folder holds files of another format, which would be mixed with those to be written."""
    if not chosen.written:  # one file, of the name that is given
        return
    if folder.is_file():
        raise ValueError(f"{folder} is a file, and {chosen.name} is written to a folder: {_ELSEWHERE}")
    names = {name for one in formats().values() for name in one.files}
    there = {name for name in names if (folder / name).exists()}
    if foreign := sorted(name for name in there if name not in chosen.written or is_ours(folder / name)):
        raise ValueError(
            f"{folder} holds {foreign[0]}, which is none of the files written for {chosen.name}: {_ELSEWHERE}"
        )
    if there and (lacking := sorted(set(chosen.written) - there)):
        raise ValueError(
            f"{folder} holds {', '.join(sorted(there))} without {', '.join(lacking)}, which is no model of "
            f"{chosen.name}: {_ELSEWHERE}"
        )


def _format_of(path: Path) -> Format | None:
    """Return the format that a file or folder is of, None for ours: by the header, or where no other claims it."""
    if is_ours(path):
        return None
    claimed = next((one for one in formats().values() if one.recognises(path)), None)
    if claimed is None and (ours := next(filter(is_ours, sorted(path.glob("*.safetensors"))), None)):
        raise ValueError(f"{path} is a folder, and {ours.name} in it a file of proxsae: give the file")
    if claimed is None and path.is_dir():
        raise ValueError(f"{path} is a folder of no format that is known: {_lacking(path)}")
    return claimed


def _of_folder(path: Path) -> str:
    """Return the sentence for a file that is not ours: which library wrote it, if it is one of several files."""
    of = next((one for one in formats().values() if path.name in one.files and one.recognises(path.parent)), None)
    return "" if of is None else f"; it is one of the files of {of.library} in that folder: give the folder"


def _lacking(folder: Path) -> str:
    """Return the files that a folder lacks, for each format of which it has some files."""
    lacking = {one.name: [file for file in one.files if not (folder / file).is_file()] for one in formats().values()}
    partly = {name: files for name, files in lacking.items() if len(files) < len(formats()[name].files)}
    if partly:
        return "; ".join(f"for {name} it lacks {', '.join(files)}" for name, files in partly.items())
    return f"it has none of the files {', '.join(sorted({file for files in lacking.values() for file in files}))}"
