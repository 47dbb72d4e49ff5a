r"""The metrics of an evaluation: the loss of a sparse autoencoder in its reconstructions and in a language model.

Let x be the n rows, :math:`\hat x` their reconstructions, z their codes, d the number of features:

- ``mse`` :math:`= \frac{1}{n d} \sum \|x - \hat x\|^2`, in squared units of the data;
- ``fvu`` :math:`= \sum \|x - \hat x\|^2 / \sum \|x - \bar x\|^2`, the fraction of variance unexplained: sums
  and mean :math:`\bar x` run over the whole evaluation set (no mean of ratios of batches); of rows that are all equal
  it is 0 if they are reconstructed exactly, else 1;
- ``explained_variance`` :math:`= 1 -` ``fvu``;
- ``l0``: the mean over rows of the number of codes != 0;
- ``dead_fraction``: the fraction of atoms whose code is 0 on every row.

Let H be the cross-entropy of the model's next-token predictions in nats per token, over every prediction within a
context: of the model as it is (clean), with x replaced by :math:`\hat x` (spliced), and with x replaced by 0 (zero):

- ``loss_recovered`` :math:`= (H_{zero} - H_{spliced}) / (H_{zero} - H_{clean})`: 1 is perfect, 0 is no better than 0;
- ``kl`` :math:`= \mathrm{KL}(p_{clean} \,\|\, p_{spliced})`, its mean over the same predictions, in nats.

All sums are kept in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ReconstructionSums", "SparseAutoencoder", "loss_metrics", "reconstruction_metrics"]

SQUARED = (1e-100, 1e100)  # sizes whose squares float64 can sum


class SparseAutoencoder(Protocol):
    """The interface of a sparse autoencoder for the metrics: activations in, codes out, and back."""

    def transform(self, X: Any, /) -> Any:
        """Return the codes, a SciPy sparse matrix or an array of shape (n_samples, n_components)."""

    def inverse_transform(self, Z: Any, /) -> Any:
        """Return the reconstructions, an array of shape (n_samples, n_features)."""


class ReconstructionSums:
    """Sums over batches of rows, from which the metrics of the whole set follow.

    The spread about the mean is merged from batch to batch (Chan, Golub and LeVeque 1983), which does not cancel as
    sum of squares minus square of sum would. Rows whose squares float64 does not hold are summed in other units.
    """

    def __init__(self) -> None:
        self.n_rows = 0.0  # or the sum of their weights
        self.n_features = 0
        self.n_active = 0.0
        self.unit = 1.0  # the unit of the sums, a power of two
        self.eps = float(np.finfo(np.float64).eps)  # of the coarsest reconstruction
        self.mean: NDArray[np.float64] = np.zeros(0)
        self.squared_error: NDArray[np.float64] = np.zeros(0)  # the squared error of each feature
        self.spread: NDArray[np.float64] = np.zeros(0)
        self.is_alive: NDArray[np.bool_] = np.zeros(0, dtype=bool)

    def add(
        self, x: NDArray[np.floating], reconstruction: NDArray[np.floating], codes: Any, weights: Any = None
    ) -> None:
        """Add a batch: x and its reconstruction of shape (rows, n_features), codes of shape (rows, n_components).

        With `weights`, (rows,), all sums and means over rows are weighted.
        """
        rows, self.n_features = x.shape
        if self.n_rows == 0:
            self.mean, self.is_alive = np.zeros(x.shape[1]), np.zeros(codes.shape[1], dtype=bool)
            self.squared_error, self.spread = np.zeros(x.shape[1]), np.zeros(x.shape[1])
            largest = float(np.abs(x).max(initial=0.0))
            if largest > 0 and not SQUARED[0] < largest < SQUARED[1]:
                self.unit = 2.0 ** int(np.log2(largest))
        if rows == 0:
            return
        exact = x.astype(np.float64)
        self.eps = max(self.eps, float(np.finfo(np.result_type(reconstruction, np.float16)).eps))
        if self.unit != 1.0:
            exact, reconstruction = exact / self.unit, reconstruction / self.unit
        w = np.ones(rows) if weights is None else weights
        weight = float(w.sum())
        self.squared_error += w @ np.square(exact - reconstruction)
        mean = exact[0] + np.average(exact - exact[0], axis=0, weights=w)  # exact where all rows are equal
        shift, total = mean - self.mean, self.n_rows + weight
        self.spread += w @ np.square(exact - mean) + np.square(shift) * (self.n_rows * weight / total)
        self.mean += shift * (weight / total)
        active_rows, active = _active(codes)
        self.n_active += float(w[active_rows].sum())
        self.is_alive[active] = True
        self.n_rows = total

    def result(self) -> dict[str, float]:
        """Return mse, fvu, explained_variance, l0 and dead_fraction."""
        if self.n_rows == 0:
            raise ValueError("The metrics were asked of no rows; give at least one.")
        fvu = self.fvu()
        return {
            "mse": float(self.squared_error.sum()) / (self.n_rows * self.n_features) * self.unit * self.unit,
            "fvu": fvu,
            "explained_variance": 1.0 - fvu,
            "l0": self.n_active / self.n_rows,
            "dead_fraction": 1.0 - float(self.is_alive.mean()),
        }

    def fvu(self, columns: slice = slice(None)) -> float:
        """Return the fraction of variance unexplained of some features."""
        error, spread = float(self.squared_error[columns].sum()), float(self.spread[columns].sum())
        # Equal rows, up to the rounding of their mean, have nothing to explain: as scikit-learn's r2_score has it.
        rounding = 4 * self.n_rows * float(np.square(self.mean[columns]).sum())
        if spread > rounding * np.finfo(np.float64).eps ** 2:
            return error / spread
        return float(error > rounding * self.eps**2)


def reconstruction_metrics(sae: SparseAutoencoder, X: Any, Y: Any = None, *, batch_size: int = 4096) -> dict[str, Any]:
    """Return mse, fvu, explained_variance, l0 and dead_fraction of an autoencoder on rows.

    A crosscoder also has ``fvu_of_blocks``, a list; the other metrics are in the units of the data, where blocks of
    large scale dominate.

    Parameters
    ----------
    sae : object with transform and inverse_transform
        Raw activations in, codes out; codes in, raw activations out.
    X : array, memory map, torch tensor or activation store of shape (n_samples, n_features)
        The rows, read `batch_size` at a time.
    Y : array, memory map, torch tensor or activation store of shape (n_samples, n_targets), optional
        The targets of a transcoder, in place of X. An autoencoder that says that it is none ignores them, as its
        ``score`` does.
    batch_size : int, default=4096
        Rows held at once.

    Raises
    ------
    ValueError, TypeError
        If X or Y is empty, not finite or no matrix of real numbers, the shapes do not fit, or a transcoder is given no
        targets.
    """
    import torch

    from proxsae.data.rows import rows_of, with_targets

    rows = rows_of(X, "X")
    check_features(sae, rows.shape[1], "X")
    if getattr(sae, "is_transcoder_", Y is not None):
        rows = with_targets(rows, Y)
        if not rows.has_targets:
            raise ValueError("the transcoder decodes to targets Y, of shape (n_samples, n_targets): give Y")
    sums, cpu = ReconstructionSums(), torch.device("cpu")
    for block in rows.blocks(batch_size):
        x = rows.read(block, rows.dtype, cpu).numpy()
        y = rows.targets.read(block, rows.targets.dtype, cpu).numpy() if rows.has_targets else x
        sums.add(y, *reconstruct(sae, x, y))
    result: dict[str, Any] = sums.result()
    columns = getattr(getattr(sae, "blocks_", None), "columns", ())
    return result | ({"fvu_of_blocks": [sums.fvu(block) for block in columns]} if len(columns) > 1 else {})


def reconstruct(
    sae: SparseAutoencoder, x: NDArray[np.floating], y: NDArray[np.floating], name: str = "sae"
) -> tuple[NDArray[np.floating], Any]:
    """Return the reconstruction of rows (of y by a transcoder) and their codes, both checked.

    Shapes fit, and all numbers are finite.
    """
    if not np.isfinite(x).all():
        raise ValueError("The activations hold NaN or infinity; only finite values are allowed.")
    codes = _transformed(sae, x)
    if len(codes.shape) != 2 or codes.shape[0] != len(x):
        raise ValueError(f"{name}.transform gave codes of shape {tuple(codes.shape)} for {len(x)} rows.")
    reconstruction = np.asarray(sae.inverse_transform(codes))
    if reconstruction.shape != y.shape:
        raise ValueError(
            f"{name}.inverse_transform gave shape {reconstruction.shape} for activations of shape {y.shape}."
        )
    if (skip := getattr(sae, "skip_", None)) is not None:
        blocks = getattr(sae, "blocks_", None)
        reconstruction = reconstruction + (x @ skip if blocks is None else blocks.in_data_units(x @ skip))
    if not np.isfinite(reconstruction).all():
        raise ValueError(f"{name} reconstructs NaN or infinity from finite activations.")
    return reconstruction, codes


def codes_of(sae: Any, X: Any) -> scipy.sparse.csr_matrix:
    """Return the codes of X as CSR, whether the autoencoder gives CSR, an array, or a data frame by ``set_output``.

    Where ``set_output`` on it asks for data frames of CSR codes, scikit-learn raises here as it does in ``transform``.
    """
    return scipy.sparse.csr_matrix(_transformed(sae, X))


def _transformed(sae: Any, X: Any) -> Any:
    """Return the codes as a SciPy matrix or an array."""
    with config_context(transform_output="default"):  # that of all estimators may be "pandas", which refuses CSR
        codes = sae.transform(X)
    return codes if scipy.sparse.issparse(codes) else np.asarray(codes)


def check_fitted(sae: Any) -> None:
    """Raise NotFittedError for a scikit-learn estimator that is not fitted; other objects are not checked."""
    if isinstance(sae, BaseEstimator):
        check_is_fitted(sae)


def check_features(sae: SparseAutoencoder, n_features: int, of: str, name: str = "sae") -> None:
    """Raise ValueError if the autoencoder says that it was fitted on another number of features."""
    fitted = getattr(sae, "n_features_in_", n_features)
    if fitted != n_features:
        raise ValueError(f"{name} was fitted on {fitted} features, but {of} has {n_features}.")


def _active(codes: Any) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return row and column of every code that is not zero; a stored zero is a zero."""
    if scipy.sparse.issparse(codes):
        entries = codes.tocoo()
        is_active = entries.data != 0
        return entries.row[is_active], entries.col[is_active]
    rows, columns = np.nonzero(codes)
    return rows, columns


def loss_metrics(clean: float, spliced: float, zero: float, kl: float, n_predictions: int) -> dict[str, float]:
    """Return the cross-entropies, loss_recovered and kl from sums; nan where there is nothing to recover."""
    return {
        "cross_entropy_clean": clean / n_predictions,
        "cross_entropy_spliced": spliced / n_predictions,
        "cross_entropy_zero": zero / n_predictions,
        "loss_recovered": (zero - spliced) / (zero - clean) if zero != clean else float("nan"),
        "kl": kl / n_predictions,
    }


def cross_entropy_sum(log_probabilities: Tensor, targets: Tensor, is_target: Tensor) -> float:
    """Return the sum of -log p(target) over the predictions asked for, in nats.

    `log_probabilities` has shape (batch, length, n_vocabulary); `targets` and `is_target` have shape (batch, length).
    """
    picked = log_probabilities.gather(-1, targets[..., None])[..., 0]
    return -float(picked[is_target].double().sum())


def kl_sum(clean: Tensor, spliced: Tensor, is_target: Tensor) -> float:
    """Return the sum of KL(p_clean || p_spliced) over the predictions asked for, from log probabilities, in nats."""
    from torch.nn.functional import kl_div

    total = 0.0
    # a context at a time, since the terms are as many as the logits
    for log_p, log_q, wanted in zip(clean, spliced, is_target, strict=True):
        divergence = kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        total += float(divergence[wanted].double().sum())
    return total
