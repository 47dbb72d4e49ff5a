"""ProxSAE: dictionary learning with the regularizer of your choice, as a scikit-learn transformer."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from proxsae.regularizers import Cardinality, Regularizer, parse

if TYPE_CHECKING:
    import torch

    from proxsae.training import SparseAutoencoder, Trainer


class ProxSAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    r"""Sparse autoencoder whose activation is the proximal operator of the regularizer you specify.

    Minimises the mean over samples of

    .. math:: \frac12 \|x - b - z D\|^2 + R(z), \qquad z = \mathrm{prox}_R(x W + b_e),

    over W, b_e, the dictionary D (unit-norm atoms) and b, by mini-batch Adam. The weight of R is in the units of X, as
    in :func:`proxsae.solve`.

    Parameters
    ----------
    regularizer : Regularizer or str, optional
        R, such as ``Cardinality(32)`` or ``"0.1*L1 + NonNegative"``. None: ``Cardinality(k)`` with k = 32, or an eighth
        of the atoms if that is less.
    n_components : int, optional
        Number of atoms; None: 8 times the features.
    encoder : {"amortized"}, default "amortized"
        How codes are computed: one proximal step with a free matrix.
    target_l0 : float, optional
        Steer the weight of R during training so that samples have this mean number of non-zeros. For L0 regularizers
        each atom then learns a threshold of its own.
    n_steps : int, default 1000
        Training steps.
    batch_size : int, default 2048
        Samples a step.
    learning_rate : float, default 2e-3
        Peak step size of Adam, for data scaled to mean norm sqrt(n_features).
    dead_after : int, default 100_000
        Samples after which an unused atom counts as dead and is trained on the residual.
    sparse_output : bool, default True
        Return codes as SciPy CSR; False: as a dense array.
    device : str, default "auto"
        A torch device; "auto" takes CUDA where there is one.
    random_state : int, RandomState or None
        Fixes the initial dictionary and the order of the samples: the same seed gives the same result on one machine.
    verbose : int, default 0
        1 shows a progress bar on a terminal.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        D.
    intercept_ : ndarray of shape (n_features,)
        b.
    encoder_ : proxsae.encoders.Amortized
        The trained encoder, for raw X; a torch module.
    regularizer_ : Regularizer
        R as fitted, in the units of X: with its steered weight or learned thresholds; at batch scope the L0 regularizer
        whose threshold selects as the batches did, so that a code does not depend on the other samples.
    history_ : dict of str to ndarray
        For each step: ``step``, ``loss``, ``fvu``, ``l0``, ``dead`` (fraction of atoms), ``learning_rate``.
    n_iter_ : int
        Steps done.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from proxsae import ProxSAE
    >>> from proxsae.regularizers import Cardinality
    >>> X = np.random.default_rng(0).normal(size=(500, 20))
    >>> sae = ProxSAE(Cardinality(4), n_components=40, n_steps=50, random_state=0).fit(X)
    >>> sae.transform(X).shape
    (500, 40)
    """

    def __init__(
        self,
        regularizer: Regularizer | str | None = None,
        n_components: int | None = None,
        *,
        encoder: str = "amortized",
        target_l0: float | None = None,
        n_steps: int = 1000,
        batch_size: int = 2048,
        learning_rate: float = 2e-3,
        dead_after: int = 100_000,
        sparse_output: bool = True,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.regularizer = regularizer
        self.n_components = n_components
        self.encoder = encoder
        self.target_l0 = target_l0
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.dead_after = dead_after
        self.sparse_output = sparse_output
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # --- fitting -----------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Train on X.

        Parameters
        ----------
        X : array, memory map, torch tensor or activation store of shape (n_samples, n_features)
            Memory maps and stores are read a batch at a time.
        y : ignored

        Returns
        -------
        self
            Ctrl-C stops the training early and leaves a fitted model, with a warning.

        Raises
        ------
        ValueError, TypeError
            If a parameter or X is not as described, or X holds NaN or infinity.
        FloatingPointError
            If the loss becomes NaN or infinite.
        """
        X = self._checked_rows(X, reset=True)
        self._start(X, self.n_steps)
        self._train(X, self.n_steps)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Go on training with one pass over X, at a constant step size.

        The first call fixes the scale of the data and, unless the model is fitted already, the initial dictionary.
        """
        X = self._checked_rows(X, reset=not hasattr(self, "components_"))
        if not hasattr(self, "_trainer"):
            self._start(X, None, fitted=self._model if hasattr(self, "components_") else None)
        self._trainer.n_steps = None  # no end in sight: the step size stays where it is
        self._train(X, -(-X.shape[0] // self.batch_size))
        return self

    def calibrate(self, X: Any) -> Self:
        """Set the weight of the fitted R anew so that codes of X have a mean L0 of `target_l0`.

        For data unlike those of the training, or samples kept from it: on few samples seen often, an encoder learns
        codes that are sparser than those of new ones.

        Parameters
        ----------
        X : array, memory map, torch tensor or activation store of shape (n_samples, n_features)
            4096 evenly spaced rows are used.
        """
        from proxsae.data.rows import evenly_spaced, read_rows
        from proxsae.training.sparsity import WeightControl

        check_is_fitted(self)
        if self.target_l0 is None:
            raise ValueError("calibrate needs a model with target_l0")
        X = self._checked_rows(X, reset=False)
        weight = self.encoder_.weight
        x = read_rows(X, evenly_spaced(X.shape[0], 4096), weight.dtype, weight.device)
        WeightControl(self.target_l0).meet(self.encoder_, x)
        self.regularizer_ = self.encoder_.regularizer
        return self

    def _start(self, X: Any, n_steps: int | None, fitted: SparseAutoencoder | None = None) -> None:
        """Create the autoencoder in normalised units, or take the fitted one there, and its trainer."""
        import torch

        from proxsae.data.rows import code_dtype, moments, torch_device
        from proxsae.training.autoencoder import in_normalised_units
        from proxsae.training.sparsity import check_steerable

        n_features = X.shape[1]
        n_components = self._n_atoms()
        self._check_parameters(n_components)
        self._given = self._checked_regularizer(n_components)
        if self.target_l0 is not None:
            check_steerable(self._given)
        device = torch_device(self.device)
        dtype = getattr(torch, code_dtype(X))
        self._mean, norm = moments(X, dtype, device)
        self._scale = norm / n_features**0.5 or 1.0
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if fitted is not None:
            model = in_normalised_units(fitted, self._mean, self._scale)
            if self.target_l0 is None:
                model.encoder.regularizer = self._given.rescaled(1 / self._scale)
        else:
            model = self._initial_model(self._given.rescaled(1 / self._scale), dtype)
        self._trainer = self._new_trainer(model, n_steps)
        self._records: list[dict[str, float]] = []

    def _initial_model(self, regularizer: Regularizer, dtype: torch.dtype) -> SparseAutoencoder:
        import torch

        from proxsae.training.autoencoder import initial_autoencoder

        generator = torch.Generator().manual_seed(self._seed)
        learn_thresholds = self.target_l0 is not None
        return initial_autoencoder(
            regularizer, self._n_atoms(), self.n_features_in_, generator, dtype, learn_thresholds
        )

    def _n_atoms(self) -> int:
        return 8 * self.n_features_in_ if self.n_components is None else self.n_components

    def _new_trainer(self, model: SparseAutoencoder, n_steps: int | None) -> Trainer:
        from proxsae.data.rows import torch_device
        from proxsae.training import Trainer

        return Trainer(
            model.to(torch_device(self.device)),
            learning_rate=self.learning_rate,
            n_steps=n_steps,
            target_l0=self.target_l0,
            dead_after=self.dead_after,
        )

    def _train(self, X: Any, n_steps: int) -> None:
        from tqdm import tqdm

        from proxsae.data.rows import BatchOrder, evenly_spaced, read_rows

        trainer = self._trainer
        device, dtype = trainer.model.atoms.device, trainer.model.atoms.dtype
        order = BatchOrder(X.shape[0], self.batch_size, self._seed + trainer.n_done)
        bar = tqdm(range(n_steps), desc="fit", unit="step", disable=None if self.verbose else True)
        try:
            for _ in bar:
                x = (read_rows(X, order.next(), dtype, device) - self._mean) / self._scale
                record = trainer.step(x)
                self._records.append(record)
                bar.set_postfix(fvu=f"{record['fvu']:.3f}", l0=f"{record['l0']:.1f}", refresh=False)
        except KeyboardInterrupt:
            warnings.warn(f"interrupted: the model is that of step {trainer.n_done}", stacklevel=3)
        if trainer.control is not None:
            x = (read_rows(X, evenly_spaced(X.shape[0], 4096), dtype, device) - self._mean) / self._scale
            trainer.control.meet(trainer.model.encoder, x)
        self._finish()

    def _finish(self) -> None:
        """Fold the normalisation into the parameters and set the fitted attributes."""
        from proxsae.training.autoencoder import in_data_units, per_sample

        trainer = self._trainer
        model = in_data_units(trainer.model, self._mean, self._scale)
        if self._given.scope == "batch":
            smallest_gain = (trainer.smallest_gain or 0.0) * self._scale**2
            model.encoder.regularizer = per_sample(self._given, smallest_gain)
        elif self.target_l0 is None:
            model.encoder.regularizer = self._given  # the change of units and back would round its weights
        self._set_model(model)
        names = self._records[0] if self._records else {}
        self.history_ = {name: np.array([record[name] for record in self._records]) for name in names}
        self.history_ = {"step": np.arange(1, len(self._records) + 1), **self.history_}
        self.n_iter_ = trainer.n_done

    def _set_model(self, model: SparseAutoencoder) -> None:
        self._model = model
        self.encoder_ = model.encoder.requires_grad_(False)
        self.regularizer_ = model.encoder.regularizer
        self.components_ = model.atoms.detach().cpu().numpy()
        self.intercept_ = model.bias.detach().cpu().numpy()
        self._n_features_out = len(self.components_)

    # --- using ---------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Return the codes of X: CSR, or a dense array, of shape (n_samples, n_components)."""
        from scipy.sparse import vstack

        check_is_fitted(self)
        X = self._checked_rows(X, reset=False)
        Z = vstack(list(self._encoded(X)), format="csr")
        return Z if self.sparse_output else Z.toarray()

    def inverse_transform(self, Z: Any) -> Any:
        """Return the reconstruction Z D + b of shape (n_samples, n_features), from sparse or dense codes."""
        check_is_fitted(self)
        if getattr(Z, "ndim", 2) != 2 or np.shape(Z)[1] != len(self.components_):
            raise ValueError(f"Z must have shape (n_samples, {len(self.components_)}), got {np.shape(Z)}")
        return Z @ self.components_ + self.intercept_

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        r"""Return the explained variance of the reconstruction, :math:`1 - \sum\|x-\hat x\|^2 / \sum\|x-\bar x\|^2`."""
        from proxsae.metrics import reconstruction_metrics

        check_is_fitted(self)
        X = self._checked_rows(X, reset=False)
        return float(reconstruction_metrics(self, X)["explained_variance"])

    def amortization_gap(self, X: Any) -> Any:
        """Return by how much the encoder misses the objective that a solver reaches, one number a sample.

        F(z_encoder) - F(z_solver) >= 0 up to rounding, with the same D, b and R; the solver starts at the code of the
        encoder, and for a non-convex R finds a local minimum. In squared units of X.
        """
        from proxsae.solvers import solve

        check_is_fitted(self)
        X = np.asarray(self._checked_rows(X, reset=False))
        Z = np.asarray(self.transform(X).todense() if self.sparse_output else self.transform(X))
        residual = X - self.inverse_transform(Z)
        encoded = 0.5 * (residual.astype(np.float64) ** 2).sum(1) + self.regularizer_.value(Z)
        solved = solve(X, self.components_, self.regularizer_, intercept=self.intercept_, init=Z)
        return encoded - solved.objective

    def _encoded(self, X: Any) -> Any:
        """Yield CSR codes batch by batch."""
        import torch

        from proxsae.data.rows import code_dtype, read_rows

        weight = self.encoder_.weight
        for start in range(0, X.shape[0], self.batch_size):
            rows = slice(start, min(start + self.batch_size, X.shape[0]))
            with torch.no_grad():
                x = read_rows(X, rows, weight.dtype, weight.device)
                yield self.encoder_.codes(x).to_csr().astype(code_dtype(X), copy=False)

    # --- files ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, training_state: bool = False) -> None:
        """Write the fitted model to one safetensors file, whole or not at all.

        Parameters
        ----------
        path : path
        training_state : bool, default False
            Write what :meth:`partial_fit` needs to go on as if never stopped: about four times the size.
        """
        from proxsae.formats.native import SavedSAE, write_sae

        check_is_fitted(self)
        parameters = self.get_params(deep=False)
        given = parameters.pop("regularizer")
        if not isinstance(parameters["random_state"], int | None):
            parameters["random_state"] = None  # the state of a generator is not a parameter
        training, regularizer = self._training_state() if training_state else ({}, None)
        given = parse(given) if isinstance(given, str) else given
        write_sae(path, SavedSAE(self._model, given, parameters, self.history_, self.n_iter_, training, regularizer))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the model that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file is missing, foreign or damaged; the sentence names the file and the field.
        """
        from proxsae.data.rows import torch_device
        from proxsae.formats.native import read_sae

        saved = read_sae(path)
        sae = cls(saved.regularizer, **saved.parameters)
        sae._set_model(saved.model.to(torch_device(sae.device)))
        sae.n_features_in_ = saved.model.atoms.shape[1]
        sae.n_iter_ = saved.n_iter
        sae.history_ = saved.history
        if saved.training:
            sae._resume(saved.training, saved.training_regularizer)
        return sae

    def _training_state(self) -> tuple[dict[str, Any], Regularizer]:
        import torch

        if not hasattr(self, "_trainer"):
            raise ValueError("there is no training to go on with: the model was loaded without its training state")
        numbers = torch.tensor([self._scale, self._seed], dtype=torch.float64)
        state = {**self._trainer.state(), "mean": self._mean, "scale_and_seed": numbers}
        return state, self._trainer.model.encoder.regularizer

    def _resume(self, state: dict[str, Any], regularizer: Regularizer | None) -> None:
        """Rebuild the trainer from its state."""
        from proxsae.data.rows import torch_device

        self._given = self._checked_regularizer(len(self.components_))
        self._scale, seed = state["scale_and_seed"].tolist()
        self._seed = int(seed)
        self._mean = state["mean"].to(torch_device(self.device))
        assert regularizer is not None
        self._trainer = self._new_trainer(self._initial_model(regularizer, self._mean.dtype), None)
        self._trainer.restore(state)
        names = [name for name in self.history_ if name != "step"]
        rows = zip(*(self.history_[name].tolist() for name in names), strict=True)
        self._records = [dict(zip(names, row, strict=True)) for row in rows]

    # --- validation -----------------------------------------------------------------------------------------------

    def _checked_rows(self, X: Any, *, reset: bool) -> Any:
        """Return X as something to read rows from; what is in memory is validated whole, the rest batch by batch."""
        from proxsae.data.rows import is_row_source

        if not is_row_source(X):
            return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], order="C")
        if len(X.shape) != 2:
            raise ValueError(f"X must have shape (n_samples, n_features), got {tuple(X.shape)}")
        if "float" not in str(X.dtype):
            raise TypeError(f"X must hold floating-point numbers, got {X.dtype}")
        if X.shape[0] < 1:
            raise ValueError(f"X must have at least one sample, got shape {tuple(X.shape)}")
        if reset:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} features, but ProxSAE is expecting {self.n_features_in_} features")
        return X

    def _checked_regularizer(self, n_components: int) -> Regularizer:
        R = self.regularizer
        if R is None:
            R = Cardinality(max(1, min(32, n_components // 8)))
        if isinstance(R, str):
            R = parse(R)
        if not isinstance(R, Regularizer):
            raise TypeError(f"regularizer must be a Regularizer or its text, got {type(R).__name__}")
        if isinstance(R, Cardinality) and R.k > n_components:
            raise ValueError(f"k must not exceed n_components: {R} with {n_components} components")
        R.check_width(n_components)
        return R

    def _check_parameters(self, n_components: int) -> None:
        if self.encoder != "amortized":
            raise ValueError(f'encoder must be "amortized", got {self.encoder!r}')
        if self.target_l0 is not None and not 0 < self.target_l0 < n_components:
            raise ValueError(f"target_l0 must lie between 0 and n_components = {n_components}, got {self.target_l0}")
        for name in ("n_steps", "batch_size", "dead_after"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if not (isinstance(self.learning_rate, int | float) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
