"""Sparse autoencoders whose activation is no proximal operator: they encode, decode and can be measured, without R."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from proxsae.data.rows import Rows, checked_codes, rows_of
from proxsae.formats.largest_values import LargestValues
from proxsae.formats.parts import Parts
from proxsae.formulas.arrays import name_of_dtype, to_numpy
from proxsae.metrics import reconstruction_metrics

BATCH = 2048  # rows whose codes are dense at once
NEEDS_R = (
    "regularizer_",
    "refine",
    "amortization_gap",
    "calibrate",
    "fit",
    "partial_fit",
    "fit_transform",
    "as_saelens",
)
CANNOT = "it encodes, decodes, is evaluated and written back, and cannot be refined, certified or trained further"
INSTEAD = (
    "for an R of your choice solve(X, D, R, intercept=b) finds codes of these atoms, and ProxSAE(R).fit(X, init=D) "
    "trains an encoder of them, with D = components_ and b = intercept_"
)


class NoProxError(AttributeError, ValueError):
    """Raised where an operation needs R, but the activation is the prox of no R."""


class SAEWithoutProx:
    """A sparse autoencoder with an encoder of any kind, for all that needs no R.

    It has the methods and attributes of a fitted :class:`~proxsae.ProxSAE` for codes and reconstructions, which suffice
    for :func:`proxsae.llm.evaluate`, the metrics, the report and SAEBench. Methods that need R raise
    :class:`NoProxError`.

    Parameters
    ----------
    components : array of shape (n_components, n_features)
        D, of any norm.
    intercept : array of shape (n_features,)
        b.
    encoder : torch.nn.Module
        From x, (n_samples, n_features), to dense codes, (n_samples, n_components): :class:`LargestValues`, or one of
        your own. With an attribute ``is_nonnegative``, true where codes never are negative.
    provenance : dict, optional
        The provenance of the activations, with the keys of ``store.info``.

    Attributes
    ----------
    components_, intercept_, encoder_, provenance_, history_, n_features_in_
        As of :class:`~proxsae.ProxSAE`; ``history_`` is empty.

    Examples
    --------
    >>> import torch
    >>> from proxsae.formats import LargestValues, SAEWithoutProx
    >>> W, D = torch.randn(8, 3), torch.randn(8, 3)
    >>> sae = SAEWithoutProx(D, torch.zeros(3), LargestValues(W, torch.zeros(8), k=2))
    >>> sae.transform([[1.0, 2.0, 3.0]]).shape
    (1, 8)
    """

    is_transcoder_ = False
    skip_ = None
    regularizer = "none"

    def __init__(
        self, components: Any, intercept: Any, encoder: nn.Module, provenance: dict[str, Any] | None = None
    ) -> None:
        self.components_, self.intercept_ = to_numpy(components), to_numpy(intercept)
        self.encoder_ = encoder.requires_grad_(False)
        self.provenance_ = provenance or {}
        self.history_: dict[str, Any] = {}
        self.n_features_in_ = self.components_.shape[1]

    @classmethod
    def of(cls, parts: Parts) -> Self:
        """Return the autoencoder of the parts of a file."""
        assert parts.k is not None
        encoder = LargestValues(parts.weight, parts.bias, parts.k)
        return cls(parts.atoms, parts.intercept, encoder, parts.provenance)

    def parts(self) -> Parts:
        """Return the parts for a file of a library.

        Raises
        ------
        ValueError
            If no library has such an encoder.
        """
        encoder, rows = self.encoder_, self.provenance_.get("normalised_rows", "raw")
        if not isinstance(encoder, LargestValues):
            raise ValueError(f"no library has a file for the encoder {type(encoder).__name__}")
        weight, bias, D, b = (
            torch.as_tensor(array) for array in (encoder.weight, encoder.bias, self.components_, self.intercept_)
        )
        return Parts(weight, bias, D, b, "topk_without_relu", encoder.k, rows=rows, provenance=self.provenance_)

    def __repr__(self) -> str:
        n_components, n_features = self.components_.shape
        return f"SAEWithoutProx({n_components} atoms, {n_features} features, {type(self.encoder_).__name__})"

    def __getattr__(self, name: str) -> Any:
        if name in NEEDS_R:
            raise NoProxError(
                f"there is no {name}, because {type(self.encoder_).__name__} is the prox of no R; {INSTEAD}"
            )
        raise AttributeError(f"SAEWithoutProx has no attribute {name!r}")

    def transform(self, X: Any) -> Any:
        """Return the codes of X, CSR of shape (n_samples, n_components), in the precision of X."""
        from scipy.sparse import csr_matrix, vstack

        rows = self._rows(X)
        like = torch.as_tensor(self.components_)
        with torch.no_grad():
            blocks = [self.encoder_(rows.read(block, like.dtype, like.device)) for block in rows.blocks(BATCH)]
        dtype = name_of_dtype(rows.dtype)
        return vstack([csr_matrix(to_numpy(z)) for z in blocks], format="csr").astype(dtype, copy=False)

    def inverse_transform(self, Z: Any) -> Any:
        """Return the reconstruction Z D + b of shape (n_samples, n_features), from sparse or dense codes."""
        return checked_codes(Z, len(self.components_)) @ self.components_ + self.intercept_

    def predict(self, X: Any) -> Any:
        """Return the reconstruction of X."""
        return self.inverse_transform(self.transform(X))

    def score(self, X: Any) -> float:
        """Return the explained variance of the reconstruction, see :mod:`proxsae.metrics`."""
        return float(reconstruction_metrics(self, X)["explained_variance"])

    def as_saebench(self, model_name: str | None = None, hook_name: str | None = None) -> Any:
        """Return the autoencoder as an object for SAEBench; see :func:`proxsae.formats.as_saebench`."""
        from proxsae.formats.saebench_object import as_saebench

        return as_saebench(self, model_name, hook_name)

    def _rows(self, X: Any) -> Rows:
        rows = rows_of(X, "X")
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {rows.shape[1]} features, and the model is for {self.n_features_in_}")
        return rows
