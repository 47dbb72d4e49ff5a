"""Each token less its mean, over its standard deviation: rows to train on, and autoencoders of such rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from proxsae.estimator import ProxSAE


class StandardisedRows:
    """Rows of an activation store, or of another matrix that is read by rows, each standardised on its own."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, np.dtype(np.float32)
        info = getattr(rows, "info", {})
        self.info = {**info, "site": f"{info['site']}, each row standardised"} if "site" in info else info

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> NDArray[np.floating]:
        return standardised(self.rows[key])[0]


class TokenStandardised:
    r"""An autoencoder of standardised rows, as one of raw rows.

    With m and s the mean and the standard deviation of the features of a row x, and z the code of (x - m) / s, the
    reconstruction is :math:`s (z D + b) + m 1`. It is linear in the code (s z, s, m), which is what `transform` gives:
    the decoder of every row gets two numbers more than the L0 of z.

    Parameters
    ----------
    sae : ProxSAE
        Fitted on :class:`StandardisedRows`.
    """

    def __init__(self, sae: ProxSAE) -> None:
        self.sae, self.n_features_in_ = sae, sae.n_features_in_

    def transform(self, X: Any) -> Any:
        """Return the codes (s z, s, m), CSR of shape (n_samples, n_components + 2)."""
        from scipy.sparse import csr_matrix, diags_array, hstack

        rows, mean, deviation = standardised(np.asarray(X))
        Z = csr_matrix(diags_array(deviation[:, 0]) @ self.sae.transform(rows))
        return hstack([Z, csr_matrix(deviation), csr_matrix(mean)], format="csr")

    def inverse_transform(self, Z: Any) -> Any:
        """Return the reconstructions, of shape (n_samples, n_features)."""
        D, b = self.sae.components_, self.sae.intercept_
        return Z @ np.vstack([D, b, np.ones_like(b)])


def standardised(x: NDArray[np.floating]) -> tuple[NDArray[np.floating], ...]:
    """Return (x - m) / s, m and s over the last axis; rows of equal entries become 0."""
    x = x.astype(np.float64)
    mean, deviation = x.mean(-1, keepdims=True), x.std(-1, keepdims=True)
    rows = (x - mean) / np.where(deviation > 0, deviation, 1.0)
    return rows.astype(np.float32), mean.astype(np.float32), deviation.astype(np.float32)
