"""Better codes of a fitted model: those that a solver finds from the codes of its encoder."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags_array, vstack
from torch import Tensor

from proxsae.encoders import Codes
from proxsae.formulas.arrays import name_of_dtype, to_numpy
from proxsae.regularizers import Regularizer
from proxsae.solvers import solve
from proxsae.solvers.direct import weakest
from proxsae.training.autoencoder import Autoencoder
from proxsae.training.inference import encoded_pairs, model_and_pairs

ENTRIES = 2**24  # entries of a dense block of codes


class Refinement(NamedTuple):
    r"""Codes that a solver found from those of an encoder, and what they are worth, a row a sample.

    Attributes
    ----------
    codes : CSR matrix of shape (n_samples, n_components)
    before, after : float64 array of shape (n_samples,)
        The objective :math:`\frac12 \|x - b - z D\|^2 + R(z)` of the code of the encoder and of the refined one.
    certificate : float64 array of shape (n_samples,)
        The certificate of the refined code, where that is the code of the solver; a duality gap bounds how far F is
        above its minimum.
    certificate_kind : str
        See :class:`proxsae.solvers.Solution`.
    """

    codes: Any
    before: Any
    after: Any
    certificate: Any
    certificate_kind: str


def refine(sae: Any, X: Any, Y: Any, **options: Any) -> Refinement:
    """Return the codes of X that `solve`, with these options, finds from those of the encoder; no sample ends worse.

    Codes are computed on the CPU in float64, whose methods are the fastest, wherever the model is.
    """
    model, rows = model_and_pairs(sae, X, Y)
    R = model.encoder.current_regularizer
    blocks = encoded_pairs(model.encoder, rows, max(1, ENTRIES // len(model.atoms)))
    parts = [_refined(model, R, y.double() - model.beside_codes(x), codes, options) for x, y, codes in blocks]
    codes = vstack([part.codes for part in parts], format="csr").astype(name_of_dtype(rows.dtype))
    before, after, certificate = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
    kind = weakest(np.array([part.certificate_kind for part in parts]))
    return Refinement(codes, before, after, certificate, kind)


@torch.no_grad()
def _refined(model: Autoencoder, R: Regularizer, y: Tensor, codes: Codes, options: dict[str, Any]) -> Refinement:
    """Return the refined codes of y in float64, where y is the target less b and the skip connection."""
    D = model.atoms.detach()
    dense = codes.to_dense()
    penalty = R.value(dense)  # in the dtype of the codes: rounding may put them outside of a ball in another
    before = to_numpy(0.5 * (y - codes.decode(D)).square().sum(1) + penalty)
    Z = codes.to_csr()
    Y, atoms = (to_numpy(part.double()) for part in (y, D))
    R = R.map_parameters(lambda _, value: to_numpy(value))
    solution = solve(Y, atoms, R, init=Z.astype(np.float64), sparse_output=True, **options)
    after = solution.objective
    better = after <= before
    kept = diags_array(1.0 * better) @ solution.codes + diags_array(1.0 * ~better) @ Z
    return Refinement(
        csr_matrix(kept), before, np.minimum(after, before), solution.certificate, solution.certificate_kind
    )


class Refined:
    """An autoencoder with the atoms of a fitted one and the codes that its :meth:`~proxsae.ProxSAE.refine` returns.

    It has the methods that :func:`proxsae.llm.evaluate` and :mod:`proxsae.metrics` call.

    Parameters
    ----------
    sae : ProxSAE
        A fitted model, but no transcoder, whose codes do not reconstruct their own input.
    **options
        Options of ``refine``.

    Raises
    ------
    ValueError
        If the model is a transcoder, or one of another library whose activation is the prox of no regularizer.
    """

    def __init__(self, sae: Any, **options: Any) -> None:
        if sae.is_transcoder_:
            raise ValueError("codes of a transcoder are refined with its targets: call refine(X, Y), not Refined")
        self.sae, self.refine, self.options = sae, sae.refine, options
        self.n_features_in_ = sae.n_features_in_
        self.provenance_ = getattr(sae, "provenance_", {})

    def transform(self, X: Any) -> Any:
        """Return the refined codes, CSR."""
        return self.refine(X, **self.options).codes

    def inverse_transform(self, Z: Any) -> Any:
        """Return Z D + b."""
        return self.sae.inverse_transform(Z)
