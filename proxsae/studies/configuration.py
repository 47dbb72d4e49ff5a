"""The configuration of a row of a sweep, from which the autoencoder can be trained again alone; and grids of these."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from proxsae.regularizers import Regularizer, get
from proxsae.regularizers.naming import ACTIVATIONS

SCALINGS = ("mean-norm", "token")
MATCHES = ("parameters", "atoms")
NO_ATOM_DIES = 2**62  # samples after which an unused atom would count as dead: AuxK has nothing to revive


@dataclass(frozen=True)
class Configuration:
    """One autoencoder of a sweep.

    Attributes
    ----------
    activation : str
        A name of :func:`proxsae.regularizers.get` that takes `k`, or a weight `lam` that is steered to the L0.
    n_components : int
    l0 : float
        Non-zeros a token: k, or the target of the weight.
    seed : int
    scaling : {"mean-norm", "token"}
        The units of the training: one mean and scale for the data, or each token x as (x - mean(x)) / (std(x) + 1e-5),
        std with n - 1. What is subtracted and divided by is put back into the reconstruction, and does not count in the
        L0.
    auxk : bool
        Whether atoms unused for 100,000 samples are trained on the residual.
    n_steps, batch_size, learning_rate
        As in :class:`proxsae.ProxSAE`.
    """

    activation: str
    n_components: int
    l0: float
    seed: int = 0
    scaling: str = "mean-norm"
    auxk: bool = True
    n_steps: int = 1000
    batch_size: int = 2048
    learning_rate: float = 4e-3

    def __post_init__(self) -> None:
        needed = _parameters(self.activation)
        if needed not in (["k"], ["lam"]):
            known = ", ".join(name for name in ACTIVATIONS if _parameters(name) in (["k"], ["lam"]))
            raise ValueError(f"a sweep knows the activations {known}; got {self.activation!r}")
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}, got {self.scaling!r}")
        if not self.l0 > 0 or (self.is_counted and self.l0 != int(self.l0)):
            kind = "an integer" if self.is_counted else "a number"
            raise ValueError(f"l0 must be {kind} above 0 for {self.activation}, got {self.l0}")

    @property
    def is_counted(self) -> bool:
        """Whether R fixes the number of non-zeros; else its weight is steered."""
        return _parameters(self.activation) == ["k"]

    @property
    def name(self) -> str:
        """The name of the row and of its files; parameters that it leaves out are the same in all rows of a sweep."""
        aside = ("-token" if self.scaling == "token" else "") + ("" if self.auxk else "-noauxk")
        return f"{self.activation}-{self.n_components}-l0_{self.l0:g}{aside}-seed{self.seed}"

    @property
    def regularizer(self) -> Regularizer:
        """R; a steered weight starts at 1."""
        return get(self.activation, **({"k": int(self.l0)} if self.is_counted else {"lam": 1.0}))

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the :class:`proxsae.ProxSAE`."""
        return {
            "regularizer": self.regularizer,
            "n_components": self.n_components,
            "target_l0": None if self.is_counted else self.l0,
            "n_steps": self.n_steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "random_state": self.seed,
            **({} if self.auxk else {"dead_after": NO_ATOM_DIES}),
        }


def grid(
    activations: Sequence[str],
    l0: Sequence[float],
    *,
    n_components: int,
    n_seeds: int = 1,
    match: str = "parameters",
    scalings: Sequence[str] = ("mean-norm",),
    auxk: Sequence[bool] = (True,),
    **training: Any,
) -> list[Configuration]:
    """Return all combinations, seeds outermost, so that a sweep that is cut short holds whole grids.

    Parameters
    ----------
    activations : sequence of str
        Names of :func:`proxsae.regularizers.get`; ``"topk:2"`` has twice the atoms.
    l0 : sequence of float
    n_components : int
        P.
    n_seeds : int, default 1
        Seeds 0, 1, ...
    match : {"parameters", "atoms"}, default "parameters"
        The size that all rows share. With "parameters" all have P atoms, hence as many parameters. With "atoms" an atom
        of signed codes counts as two, d and -d, so that autoencoders of non-negative codes have 2 P atoms: AbsTopK(P)
        is TopK(2 P) whose atoms are tied in pairs [D, -D].
    scalings, auxk : sequences
        See :class:`Configuration`.
    **training
        ``n_steps``, ``batch_size`` and ``learning_rate``.

    Raises
    ------
    ValueError
        If a list is empty or something in it is not as described.
    """
    if match not in MATCHES:
        raise ValueError(f"match must be one of {', '.join(MATCHES)}, got {match!r}")
    for name, values in (("activations", activations), ("l0", l0), ("scalings", scalings), ("auxk", auxk)):
        if not values:
            raise ValueError(f"{name} is empty; give at least one")
    if n_components < 1 or n_seeds < 1:
        raise ValueError(f"n_components and n_seeds must be at least 1, got {n_components} and {n_seeds}")
    rows = []
    for seed, scaling, has_auxk, text, count in product(range(n_seeds), scalings, auxk, activations, l0):
        activation, factor = _activation_and_factor(text)
        row = Configuration(activation, factor * n_components, count, seed, scaling, has_auxk, **training)
        if match == "atoms" and row.regularizer.is_nonnegative:
            row = replace(row, n_components=2 * row.n_components)
        rows.append(row)
    return list(dict.fromkeys(rows))


def abstopk_paper(
    l0: Sequence[float], *, n_components: int, n_seeds: int = 1, auxk: Sequence[bool] = (True, False), **training: Any
) -> list[Configuration]:
    """Return the factorial design of the factors that may decide between TopK and AbsTopK.

    TopK(P), TopK(2 P) and AbsTopK(P), each selecting within a token or a batch, in either scaling, by default with and
    without AuxK.
    """
    names = [f"{scope}{name}" for scope in ("", "batch") for name in ("topk", "topk:2", "abstopk")]
    return grid(
        names,
        l0,
        n_components=n_components,
        n_seeds=n_seeds,
        scalings=SCALINGS,
        auxk=auxk,
        **training,
    )


def _activation_and_factor(text: str) -> tuple[str, int]:
    name, _, factor = text.strip().partition(":")
    if factor and not (factor.isdecimal() and int(factor)):
        raise ValueError(f"{text!r} asks for {factor!r} times the atoms; an integer of at least 1 is allowed")
    return name, int(factor or 1)


def _parameters(activation: str) -> list[str]:
    build = ACTIVATIONS.get(activation)
    return [] if build is None else list(inspect.signature(build).parameters)
