"""Several sparse autoencoders over the same rows in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from proxsae.estimator import ProxSAE


class FitManyError(ValueError):
    """Raised where the training of some of several autoencoders failed; the others are fitted.

    Attributes
    ----------
    errors : dict of int to Exception
        The exceptions, by the index in the list.
    """

    def __init__(self, errors: dict[int, Exception], n_saes: int) -> None:
        self.errors = errors
        told = "; ".join(f"number {number}: {error}" for number, error in errors.items())
        super().__init__(f"{len(errors)} of {n_saes} autoencoders could not be trained, the others are fitted: {told}")


def fit_many(
    saes: Sequence[ProxSAE], X: Any, y: Any = None, sample_weight: Any = None, *, resume: bool = False
) -> list[ProxSAE]:
    """Fit several autoencoders to the same X, taking their steps in turn, so that X is read once for all.

    The autoencoders may differ in every parameter. Each result is that of ``sae.fit(X, y, sample_weight)``, bit for bit
    on one machine: the order of the samples is a function of `random_state`, `batch_size` and the number of rows, as in
    ``fit``, and autoencoders with equal values of these draw the same batches, read once. A stream has its own order,
    whatever `random_state` is: autoencoders of different seeds share its rows, and a language model behind it is run
    once for all. All autoencoders are in memory at once, each with its gradients and the moments of Adam.

    Parameters
    ----------
    saes : sequence of ProxSAE
        The autoencoders, which are fitted in place. No two may share a `checkpoint_dir`.
    X : array, memory map, torch tensor, activation store or stream of shape (n_samples, n_features)
    y, sample_weight
        As in :meth:`ProxSAE.fit`: with targets all of them are transcoders.
    resume : bool, default False
        Go on from the newest checkpoints, as ``fit(X, resume=True)`` does.

    Returns
    -------
    list of ProxSAE
        The same objects, fitted. Ctrl-C or SIGTERM ends all trainings after the present step and leaves fitted models.

    Raises
    ------
    FitManyError
        If the training of some failed, as their own ``fit`` would have; the others are fitted.
    ValueError, TypeError
        If a parameter or X is not as described; then nothing has been trained.

    Examples
    --------
    >>> import numpy as np
    >>> from proxsae import ProxSAE, fit_many
    >>> X = np.random.default_rng(0).normal(size=(500, 20))
    >>> saes = [ProxSAE(f"Cardinality({k})", n_components=40, n_steps=50, random_state=0) for k in (2, 4, 8)]
    >>> [sae.transform(X).nnz for sae in fit_many(saes, X)]
    [1000, 2000, 4000]
    """
    from proxsae.formats.checkpoints import checkpoints_of
    from proxsae.training.fitting import train

    saes = list(saes)
    _check(saes)
    stores = list(map(partial(checkpoints_of, resume=resume), saes))  # whose warning names the line of the caller
    results = train(saes, X, y, sample_weight, checkpoints=stores)
    if errors := {number: error for number, error in enumerate(results) if error is not None}:
        raise FitManyError(errors, len(saes))
    return saes


def _check(saes: list[ProxSAE]) -> None:
    """Raise unless `saes` are different estimators with valid parameters and separate folders."""
    for sae in saes:
        if not isinstance(sae, ProxSAE):
            raise TypeError(f"saes must be a list of ProxSAE, got a {type(sae).__name__} in it")
        sae._validate_params()
    folders = [Path(sae.checkpoint_dir).expanduser().resolve() for sae in saes if sae.checkpoint_dir is not None]
    if not saes or len({id(sae) for sae in saes}) < len(saes):
        raise ValueError(f"saes must be at least one ProxSAE, and each there once, got {len(saes)}")
    if shared := [folder for folder in folders if folders.count(folder) > 1]:
        raise ValueError(
            f"each ProxSAE needs a checkpoint_dir of its own, and {shared.count(shared[0])} have {shared[0]}"
        )
