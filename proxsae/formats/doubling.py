r"""Signed codes in formats that know z >= 0 alone, and back.

An autoencoder with p atoms whose prox is odd is exactly a non-negative one with 2p atoms, W' = [W; -W], b' = [b; -b],
D' = [D; -D]: the signed code of atom i is the code of i less that of p + i, at most one of which is not zero. AbsTopK
becomes TopK with the same k, the soft threshold ReLU with lambda taken off both biases, the hard threshold JumpReLU.
Only ties between atoms may be decided differently.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from proxsae.encoders import Amortized
from proxsae.formats.activations import OneSide, activation_sides, cost_of, count, regularizer_of_parts
from proxsae.formats.parts import Activation, Parts
from proxsae.formats.places import is_side_by_side
from proxsae.regularizers import L1, AsymmetricL0, Cardinality, Regularizer, Zero

Signed = Literal["double", "native"]


def parts_of(sae: Any, signed: Signed) -> Parts:
    """Return the parts of a fitted estimator; signed codes as pairs of non-negative ones with ``signed="double"``.

    Raises
    ------
    ValueError
        If other libraries have no such encoder or activation.
    """
    encoder = sae.encoder_
    if not isinstance(encoder, Amortized):
        raise ValueError(f"other libraries have encoders of one matrix, as Amortized is, and this one is {encoder!r}")
    check_one_block(sae)
    parts = written_parts(encoder, torch.as_tensor(sae.components_), torch.as_tensor(sae.intercept_), signed)
    skip = None if sae.skip_ is None else torch.as_tensor(sae.skip_)
    rows = sae.provenance_.get("normalised_rows", "raw")
    return replace(parts, rows=rows, provenance=sae.provenance_, is_transcoder=sae.is_transcoder_, skip=skip)


def check_one_block(sae: Any) -> None:
    """Raise ValueError for a crosscoder, and for another model whose rows are of several places side by side."""
    sizes = sae.blocks_.sizes if hasattr(sae, "blocks_") else ()
    if len(sizes) > 1:
        raise ValueError(f"other libraries have no blocks of features, and this crosscoder has {sizes}")
    for place in (sae.provenance_.get("site"), sae.provenance_.get("target_site")):
        if is_side_by_side(place):
            raise ValueError(f"other libraries have models of one place, and this one is of {place!r} side by side")


def written_parts(encoder: Amortized, D: Tensor, intercept: Tensor, signed: Signed = "double") -> Parts:
    """Return the parts of an encoder and a decoder, see :func:`parts_of`."""
    R = encoder.current_regularizer
    sides = activation_sides(R)
    W, b = encoder.weight.detach().cpu(), encoder.bias.detach().cpu()
    is_signed = len(sides.sides) == 2
    if is_signed and signed == "native":
        if sides.k is None or not sides.is_plain:
            raise ValueError(f'signed="native" is for AbsTopK alone, and the prox of {R} is not that; take "double"')
        return Parts(W, b, D, intercept, "abstopk", sides.k)
    activation: Activation = "topk" if sides.k is not None else "jumprelu" if sides.has_thresholds else "relu"
    threshold = torch.cat([_spread(side.threshold, b) for side in sides.sides]) if activation == "jumprelu" else None
    weights, biases = zip(*(_one_side(side, W, b) for side in sides.sides), strict=True)
    return Parts(
        torch.cat(weights),
        torch.cat(biases),
        torch.cat([side.sign * D for side in sides.sides]),
        intercept,
        activation,
        sides.k,
        threshold,
    )


def encoder_and_atoms(parts: Parts) -> tuple[Amortized, Tensor]:
    """Return the encoder and D; two halves of atoms that are exactly each other's negatives become signed atoms."""
    folded = _folded(parts)
    if folded is None:
        return Amortized.of(regularizer_of_parts(parts), parts.weight, parts.bias), parts.atoms
    R, bias = folded
    half = len(parts.atoms) // 2
    return Amortized.of(R, parts.weight[:half].clone(), bias), parts.atoms[:half].clone()


def _one_side(side: OneSide, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of W' and b' of a side, computed in float64; a mere change of sign is exact."""
    slope = side.sign * np.asarray(side.slope)
    weight = side.sign * W
    if np.any(slope != side.sign):
        weight = W.double() * torch.as_tensor(slope[:, None] if slope.ndim else slope)
    bias = b.double() * torch.as_tensor(slope) - torch.as_tensor(side.shift)
    return weight.to(W.dtype), bias.to(b.dtype)


def _spread(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value).to(like.dtype).expand(len(like)).clone()


def _folded(parts: Parts) -> tuple[Regularizer, Tensor] | None:
    """Return R and b of the signed half, or None where the halves are not tied or the prox is not odd."""
    half, odd = divmod(len(parts.atoms), 2)
    W, D, b = parts.weight, parts.atoms, parts.bias
    if odd or parts.activation in ("abstopk", "groupmax") or not (_is_tied(W) and _is_tied(D)):
        return None
    lam = -0.5 * (b[:half].double() + b[half:].double())
    if bool((lam < 0).any()):  # both codes of a pair may be positive
        return None
    shrinkage: Regularizer = _weight(lam, parts) * L1() if bool(lam.any()) else Zero()
    bias = (0.5 * (b[:half].double() - b[half:].double())).to(b.dtype)
    if parts.activation == "relu":
        return shrinkage, bias
    if parts.activation == "topk":
        assert parts.k is not None
        return shrinkage + Cardinality(parts.k), bias
    assert parts.threshold is not None
    above, below = parts.threshold[:half], parts.threshold[half:]
    if torch.equal(above, below):
        return shrinkage + count(above), bias
    if bool(lam.any()):
        return None
    return AsymmetricL0(cost_of(above), cost_of(below)), bias


def _weight(lam: Tensor, parts: Parts) -> Any:
    """Return the weight that was folded into the biases: one number where all agree up to the rounding of these.

    It is the number of fewest digits that they agree on, so that a weight of 0.3 is 0.3 again. What was rounded is the
    bias, or with some libraries the bias of centred rows.
    """
    sizes = parts.bias.double().abs() + parts.bias_of_centred.double().abs()
    half, room = len(lam), torch.finfo(parts.bias.dtype).eps
    reach = room * (sizes[:half] + sizes[half:])
    low, high = float((lam - reach).max()), float((lam + reach).min())
    if not 0 < low <= high:
        return lam.numpy()
    middle = 0.5 * (low + high)
    rounded = (float(f"{middle:.{digits}e}") for digits in range(17))
    return next(number for number in rounded if low <= number <= high)


def _is_tied(rows: Tensor) -> bool:
    """Whether the second half of the rows is the negative of the first, and not all rows are zero."""
    half = len(rows) // 2
    return torch.equal(rows[half:], -rows[:half]) and bool(rows.any())
