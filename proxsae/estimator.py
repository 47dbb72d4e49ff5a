"""ProxSAE: dictionary learning with the regularizer of your choice, as a scikit-learn transformer."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from proxsae.parameters import CONSTRAINTS, WithRegularizer
from proxsae.regularizers import Regularizer

if TYPE_CHECKING:
    from proxsae.dictionary import Update
    from proxsae.encoders import Encoder
    from proxsae.formats.doubling import Signed
    from proxsae.training.autoencoder import Autoencoder
    from proxsae.training.refinement import Refinement
    from proxsae.training.settings import Asked
    from proxsae.training.state import TrainingState


class ProxSAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, WithRegularizer):  # type: ignore[misc]
    r"""Sparse autoencoder whose activation is the proximal operator of the regularizer you specify.

    Minimises the mean over samples of

    .. math:: \frac12 \|x - b - z D\|^2 + R(z), \qquad z = \mathrm{prox}_R(x W^T + b_e),

    over W, b_e, the dictionary D (unit-norm atoms) and b, by mini-batch Adam. The weight of R is in the units of X, as
    in :func:`proxsae.solve`. With ``encoder="solved"`` it is dictionary learning: z is the minimum, and codes and
    dictionary alternate. With targets, ``fit(X, Y)``, it is a transcoder: codes of x decode to y, in whose units R is,
    and :math:`y - b - z D` takes the place of :math:`x - b - z D`.

    Parameters
    ----------
    regularizer : Regularizer or str, optional
        R, such as ``Cardinality(32)`` or ``"0.1*L1 + NonNegative"``. None: ``Cardinality(k)`` with k = 32, or an eighth
        of the atoms if that is less.
    n_components : int, optional
        Number of atoms; None: 8 times the features.
    encoder : str or Encoder, default "amortized"
        "amortized": one proximal step with a free matrix; "unrolled": several with D; "solved": the codes that
        :func:`proxsae.solve` finds; or an object of :mod:`proxsae.encoders` that holds options.
    update : {"auto", "gradient", "frozen", "online", "mod", "ksvd"} or Update, default "auto"
        How D moves: "gradient", by Adam; "frozen", not at all; or between solved codes, "online", block coordinate
        descent on sums over all samples, "mod", least squares, or "ksvd", approximate K-SVD. An object of
        :mod:`proxsae.dictionary` holds options: ``Online(nonnegative=True)``. "auto": "online" where the encoder is
        "solved", else "gradient".
    loss : Matryoshka, HierarchicalTopK or None
        A sum over nested reconstructions, from :mod:`proxsae.training`, in place of the squared error.
    skip_connection : bool, default False
        For a transcoder: add a linear map of the input, x S, to the reconstruction.
    blocks : sequence of int, optional
        For a crosscoder: how many features each layer or model has, side by side in X or in targets. Each block is
        divided by its scale, and R is in these units: see :class:`proxsae.training.FeatureBlocks`.
    target_l0 : float, optional
        Steer the weight of R during training so that samples have this mean number of non-zeros. For L0 regularizers
        each atom then learns its own threshold.
    n_steps : int, default 1000
        Training steps.
    batch_size : int, default 2048
        Samples a step.
    learning_rate : float, default 4e-3
        Peak step size of Adam, for data scaled to mean norm sqrt(n_features).
    dead_after : int, default 100_000
        Samples after which an unused atom counts as dead and is trained on the residual.
    max_norm_ratio : float, optional
        Leave out rows whose norm exceeds this many times the median. None: keep them, and warn of more than 10 times.
    sparse_output : bool, default True
        Return codes as SciPy CSR; False: as a dense array, which ``set_output(transform="pandas")`` needs.
    device : str, default "auto"
        A torch device; "auto" takes CUDA where there is one.
    random_state : int, RandomState or None
        Fixes the initial dictionary and the order of the samples: the same seed gives the same result on one machine.
    verbose : int, default 0
        1 shows a progress bar on a terminal.
    checkpoint_dir : path, optional
        Folder in which `fit` keeps its last two checkpoints and the one of least recent loss: models, each with the
        state of its training.
    checkpoint_every : int, default 100
        Steps between two checkpoints.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        D; for a transcoder of shape (n_components, n_targets).
    intercept_ : ndarray of shape (n_features,)
        b; for a transcoder of shape (n_targets,).
    skip_ : ndarray of shape (n_features, n_targets) or None
        S.
    is_transcoder_ : bool
        Whether the model was fitted with targets.
    blocks_ : proxsae.training.FeatureBlocks
        Sizes and scales of the blocks, one of scale 1 except for crosscoders; D, b and the encoder are in these units.
    encoder_ : proxsae.encoders.Encoder
        The trained encoder, for raw X; a torch module.
    regularizer_ : Regularizer
        R as fitted, in the units of X: with its steered weight or learned thresholds; for R of batch scope the L0
        regularizer whose threshold selects as the batches did, so that a code does not depend on other samples.
    history_ : dict of str to ndarray
        For each step: ``step``, ``loss`` (in the units of the training), ``fvu``, ``l0``, ``dead`` (fraction of atoms),
        ``learning_rate``; for a stream ``waiting``, the share of the time of the step spent waiting for rows.
    n_iter_ : int
        Steps done.
    provenance_ : dict
        The fields of a store about its rows: language model, place in it, tokenizer, text, context length, dropped
        tokens; the place of targets is ``target_site``; ``tokens_seen`` is how many rows were drawn, repeats included.
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

    _training: TrainingState | None = None  # the state of partial_fit; not pickled

    _parameter_constraints: ClassVar[dict[str, Any]] = CONSTRAINTS

    def __init__(
        self,
        regularizer: Regularizer | str | None = None,
        n_components: int | None = None,
        *,
        encoder: str | Encoder = "amortized",
        update: str | Update = "auto",
        loss: Any = None,
        skip_connection: bool = False,
        blocks: Sequence[int] | None = None,
        target_l0: float | None = None,
        n_steps: int = 1000,
        batch_size: int = 2048,
        learning_rate: float = 4e-3,
        dead_after: int = 100_000,
        max_norm_ratio: float | None = None,
        sparse_output: bool = True,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 100,
    ) -> None:
        self.regularizer = regularizer
        self.n_components = n_components
        self.encoder = encoder
        self.update = update
        self.loss = loss
        self.skip_connection = skip_connection
        self.blocks = blocks
        self.target_l0 = target_l0
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.dead_after = dead_after
        self.max_norm_ratio = max_norm_ratio
        self.sparse_output = sparse_output
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, init: Any = None, resume: bool = False) -> Self:
        """Train on X, or as a transcoder from X to targets, from random atoms.

        Parameters
        ----------
        X : array, memory map, torch tensor or activation store of shape (n_samples, n_features)
            Memory maps and stores are read a batch at a time, or as :class:`proxsae.data.stream.ShuffledRows` where
            they are larger than the memory. X may also be such a stream of rows in a given order, or a
            :class:`proxsae.llm.ActivationStream`.
        y : array, memory map, torch tensor or activation store of shape (n_samples, n_targets), optional
            The targets that codes of X reconstruct in place of X. Labels, of shape (n_samples,), are ignored.
        sample_weight : array of shape (n_samples,), optional
            Weights >= 0 of the samples in the objective and in all statistics of the data: 0 leaves a sample out, 2
            counts it twice. Batches, first atoms and `dead_after` ignore the weights, except for 0. All weights that
            are not zero must be equal where R is of batch scope.
        init : array of shape (n_components, n_features) or fitted ProxSAE, optional
            The start in place of random atoms: atoms of any norm, in the units of the data, or a whole model, which is
            then fine-tuned: ``sae.fit(X, init=sae)``. Parameters, R included, are those of this estimator. With solved
            codes a model counts as 100,000 samples seen before, and atoms as three an atom.
        resume : bool, default False
            Go on from the newest checkpoint in `checkpoint_dir`, with the same parameters and X: on one machine the
            result is that of a fit that was never stopped, bit for bit.

        Returns
        -------
        self
            Ctrl-C or SIGTERM ends the training after the present step and leaves a fitted model and a checkpoint, with
            a warning; a second signal stops at once. The first ends only this fit: a search or a script of several
            fits goes on, with `n_iter_` short of `n_steps` here.

        Raises
        ------
        ValueError, TypeError, FloatingPointError
            If a parameter or X is not as described, the newest checkpoint is damaged or that of another fit, or the
            training diverges: a loss that explodes or is not finite leads back to the last checkpoint, or without them
            to the first step, with half the step size and a warning, at most three times.
        """
        from proxsae.formats.checkpoints import checkpoints_of
        from proxsae.training.fitting import train

        self._validate_params()
        train([self], X, y, sample_weight, checkpoints=[checkpoints_of(self, resume=resume)], init=init)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Go on training with one pass over X, at a constant step size after 100 steps; parameters are read again.

        The first call fixes the scale of the data and, unless the model is fitted already, the initial dictionary; with
        `target_l0`, its rows must differ. The state of the training is kept, but not pickled; :meth:`save` writes it
        with `training_state`.
        """
        from proxsae.training.fitting import train

        self._validate_params()
        train([self], X, y, sample_weight, checkpoints=[None], in_one_pass=True)
        return self

    def _set_fitted(self, model: Autoencoder | None, asked: Asked, history: Any = None, provenance: Any = None) -> Self:
        self.history_, self.provenance_, self._asked = history or {}, provenance or {}, asked
        self.n_iter_ = int(self.history_["step"][-1]) if self.history_ else 0
        if model is None:
            return self  # of shards, the first process alone has the model
        self.encoder_ = encoder = model.encoder.requires_grad_(False)
        self.blocks_, self.is_transcoder_ = model.blocks, model.is_transcoder
        self._n_features_out, self.n_features_in_ = len(model.atoms), encoder.n_features
        self.components_, self.intercept_ = (part.detach().cpu().numpy() for part in (model.atoms, model.bias))
        self.skip_ = None if model.skip is None else model.skip.detach().cpu().numpy()
        return self

    @classmethod
    def from_parts(
        cls,
        atoms: Any,
        bias: Any,
        encoder: Encoder,
        skip: Any = None,
        *,
        is_transcoder: bool = False,
        **parameters: Any,
    ) -> Self:
        """Return a fitted model with the arrays D, b and S and a fitted encoder.

        That is ``Amortized.of(R, W, b_e)``, or ``Solved.of(R)`` for optimal codes over given atoms. All are in the
        units of the data; the encoder holds R. `parameters` are those of the constructor.
        """
        from proxsae.training.autoencoder import fitted_autoencoder

        model = fitted_autoencoder(encoder, atoms, bias, skip, is_transcoder=is_transcoder)
        if len(parameters.get("blocks") or ()) > 1:
            raise ValueError("from_parts takes arrays in the units of the data, which those of a crosscoder are not")
        R, of_model = encoder.current_regularizer, {"encoder": encoder.unfitted(), "n_components": len(model.atoms)}
        sae = cls(R, **{**of_model, "skip_connection": skip is not None, **parameters})
        return sae._set_fitted(model, (R, None))

    def calibrate(self, X: Any) -> Self:
        """Set the weight of the fitted R again, so that codes of X have a mean L0 of `target_l0`.

        X are data unlike those of the training, or samples kept from it: an encoder learns sparser codes of samples
        that it has seen often than of new samples. 4096 evenly spaced rows of X are used.
        """
        from proxsae.training.inference import calibrate

        calibrate(self, X)
        return self

    @property
    def regularizer_(self) -> Regularizer:
        """R as fitted."""
        from proxsae.encoders.base import on_device

        check_is_fitted(self)
        return on_device(self.encoder_.current_regularizer, "cpu")

    def transform(self, X: Any) -> Any:
        """Return the codes of X: CSR, or a dense array, of shape (n_samples, n_components), in the precision of X."""
        from proxsae.training.inference import codes

        Z = codes(self, X)
        return Z if self.sparse_output else Z.toarray()

    def inverse_transform(self, Z: Any) -> Any:
        """Return the reconstruction Z D + b of shape (n_samples, n_features), from sparse or dense codes.

        For a transcoder the shape is (n_samples, n_targets), without the skip connection, which :meth:`predict` adds.
        """
        from proxsae.data.rows import checked_codes

        check_is_fitted(self)
        decoded = checked_codes(Z, len(self.components_)) @ self.components_ + self.intercept_
        return self.blocks_.in_data_units(decoded)

    def predict(self, X: Any) -> Any:
        """Return the reconstruction of X, or the prediction of a transcoder: Z D + b + X S, with the codes Z of X."""
        from proxsae.training.inference import predictions

        return predictions(self, X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        r"""Return the explained variance of the reconstruction, :math:`1 - \sum\|x-\hat x\|^2 / \sum\|x-\bar x\|^2`.

        For a transcoder it is that of the targets y; each of several blocks is in its own units, as in training. With
        `sample_weight`, (n_samples,), sums and mean are weighted. Equal rows give 1 if reconstructed exactly, else 0.
        """
        from proxsae.training.inference import explained_variance

        return explained_variance(self, X, y, sample_weight)

    def refine(
        self, X: Any, y: Any = None, *, method: str = "auto", tol: float = 1e-6, max_iter: int = 1000
    ) -> Refinement:
        """Return better codes of X: those that a solver finds, started at the codes of the encoder.

        D, b and R are those of the model; for a non-convex R the codes are a local minimum. No sample ends worse.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples, n_targets)
            For a transcoder: the targets of the codes.
        method, tol, max_iter
            As in :func:`proxsae.solve`.

        Returns
        -------
        Refinement
            ``codes``, CSR in the precision of X, the objective ``before`` and ``after``, the ``certificate`` of the
            solver and ``certificate_kind``.
        """
        from proxsae.training.refinement import refine

        return refine(self, X, y, method=method, tol=tol, max_iter=max_iter)

    def amortization_gap(self, X: Any, y: Any = None, *, return_certificate: bool = False) -> Any:
        """Return how far the objective of the encoder is above that of a solver, one number a sample.

        F(z_encoder) - F(z_solver) >= 0 with the codes that :meth:`refine` returns, in squared units of X. With
        `return_certificate` also the certificate: for a duality gap, F(z_encoder) - min F is at most the sum of both.
        """
        refined = self.refine(X, y)
        gap = refined.before - refined.after
        return (gap, refined.certificate) if return_certificate else gap

    def save(self, path: str | os.PathLike[str], *, training_state: bool = False) -> None:
        """Write the fitted model to one safetensors file, whole or not at all.

        With `training_state`, after `partial_fit`, the file holds the state to go on as if never stopped, and is four
        times as large.
        """
        from proxsae.formats.native import write

        check_is_fitted(self)
        write(path, self, with_training=training_state)

    def as_saelens(self, *, signed: Signed = "double") -> Any:
        """Return the model as a ``sae_lens.SAE``; see :func:`proxsae.formats.as_saelens`."""
        from proxsae.formats.saelens_object import as_saelens

        return as_saelens(self, signed)

    def as_saebench(self, model_name: str | None = None, hook_name: str | None = None) -> Any:
        """Return the model as an object for the evaluations of SAEBench; see :func:`proxsae.formats.as_saebench`."""
        from proxsae.formats.saebench_object import as_saebench

        return as_saebench(self, model_name, hook_name)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the model that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file is missing, foreign or damaged; the message names the file and the field.
        """
        from proxsae.formats.native import read

        return read(path, cls)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in super().__getstate__().items() if name != "_training"}
        encoder = {"encoder_": copy.deepcopy(self.encoder_).to("cpu")} if "encoder_" in state else {}
        return {**state, **encoder}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
