"""How a dictionary is learned from solved codes: the update and its options, and one step of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from proxsae.dictionary.arrays import Matrix, is_number
from proxsae.dictionary.replacement import Start, doubles, initial_atoms, with_replacements
from proxsae.dictionary.updates import AtomSet, Statistics, descend_atoms, ksvd_atoms, least_squares_atoms
from proxsae.regularizers import Regularizer

DOUBLES_EVERY = 10  # steps between looks at all pairs of atoms
UPDATES: dict[str, type[Update]] = {}  # by name; a subclass enters itself


class Batch(NamedTuple):
    """The data of a batch that an update may use."""

    X: Matrix  # (n_samples, n_features)
    codes: csr_array  # (n_samples, n_components)
    intercept: Matrix  # b with which they were found
    regularizer: Regularizer  # R
    keep: float  # the factor on sums over earlier samples
    weights: Any = None  # weights of the samples, (n_samples,)


@dataclass(frozen=True)
class Update(ABC):
    r"""A step of the dictionary after the codes of a batch have been solved.

    Parameters
    ----------
    init : {"data", "k-means++", "random"}, default "data"
        The first atoms: rows, rows that differ from one another, or random directions; see
        :func:`proxsae.dictionary.initial_atoms`.
    forgetting : float, default 8.0
        :math:`\rho \ge 0`: before n samples are added to N earlier ones, the sums over these are multiplied by
        :math:`(N / (N + n))^\rho`, so that about the last :math:`1/(\rho+1)` of all samples counts; 0 forgets nothing.
        Forgetting helps since the first codes are those of a poor dictionary. For many atoms of correlated data a
        smaller value is better: 6 for 1,024 atoms of activations.
    atoms : {"sphere", "ball"}, default "sphere"
        Norm 1, or at most 1.
    nonnegative : bool, default False
        Atoms >= 0.
    intercept : bool, default True
        False: b = 0, as in NMF and in scikit-learn's ``DictionaryLearning``. The data are then not centred, and the
        ``fvu`` of the history is relative to their squares.
    """

    name: ClassVar[str]
    init: Start = "data"
    forgetting: float = 8.0
    atoms: AtomSet = "sphere"
    nonnegative: bool = False
    intercept: bool = True

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        UPDATES[cls.name] = cls

    def __post_init__(self) -> None:
        for option, allowed in (("init", get_args(Start)), ("atoms", get_args(AtomSet))):
            if getattr(self, option) not in allowed:
                raise ValueError(f"{option} must be one of {', '.join(allowed)}, got {getattr(self, option)!r}")
        if not is_number(self.forgetting, 0):
            raise ValueError(f"forgetting must be finite and >= 0, got {self.forgetting!r}")
        for option in ("nonnegative", "intercept"):
            if not isinstance(getattr(self, option), bool | np.bool_):
                raise ValueError(f"{option} must be True or False, got {getattr(self, option)!r}")

    def problem(self, S: Statistics) -> tuple[Matrix, Matrix]:
        """Return A and B of the problem in D, in which b is the best one for D, or 0."""
        return S.centred if self.intercept else (S.gram, S.moments)

    @abstractmethod
    def moved(self, D: Matrix, S: Statistics, batch: Batch) -> tuple[Matrix, Statistics, csr_array]:
        """Return the new atoms, the sums including the batch, and the codes of the batch over the new atoms."""


class Online(Update):
    """Block coordinate descent on sums over all samples so far; see :func:`proxsae.dictionary.descend_atoms`."""

    name = "online"

    def moved(self, D: Matrix, S: Statistics, batch: Batch) -> tuple[Matrix, Statistics, csr_array]:
        """Return the atoms after one pass."""
        S = S.plus(batch.codes, batch.X, batch.keep, batch.weights)
        return descend_atoms(D, *self.problem(S), atoms=self.atoms, nonnegative=self.nonnegative), S, batch.codes


class MOD(Update):
    """The method of optimal directions: least squares; see :func:`proxsae.dictionary.least_squares_atoms`."""

    name = "mod"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nonnegative:
            raise ValueError('MOD is least squares without bounds: for nonnegative atoms take "online" or "ksvd"')

    def moved(self, D: Matrix, S: Statistics, batch: Batch) -> tuple[Matrix, Statistics, csr_array]:
        """Return the best atoms for the sums, at norm 1."""
        S = S.plus(batch.codes, batch.X, batch.keep, batch.weights)
        D, scale = least_squares_atoms(D, *self.problem(S), atoms=self.atoms)
        return D, S.rescaled(scale), csr_array(batch.codes.multiply(scale[None, :]))


class KSVD(Update):
    """Approximate K-SVD on each batch: atoms with their codes, one by one; see :func:`proxsae.dictionary.ksvd_atoms`.

    It uses the present batch alone: `forgetting` matters for b only, and a batch must hold many times more samples than
    there are atoms.
    """

    name = "ksvd"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.atoms == "ball":
            raise ValueError('KSVD is for atoms of norm 1: for those in the ball take "online" or "mod"')

    def moved(self, D: Matrix, S: Statistics, batch: Batch) -> tuple[Matrix, Statistics, csr_array]:
        """Return the atoms after one pass over the batch."""
        Y = batch.X - batch.intercept
        D, Z = ksvd_atoms(D, batch.codes, Y, batch.regularizer, nonnegative=self.nonnegative, weights=batch.weights)
        return D, S.plus(Z, batch.X, batch.keep, batch.weights), Z


class Learned(NamedTuple):
    """A dictionary between two steps."""

    atoms: Matrix  # D, (n_components, n_features)
    intercept: Matrix  # b, (n_features,)
    statistics: Statistics
    unused_for: NDArray[np.int64]  # samples since a code used the atom, (n_components,)
    n_steps: int

    @classmethod
    def start(cls, X: Matrix, n_components: int, update: Update, random: np.random.Generator) -> Learned:
        """Return the dictionary before the first step on rows like X, with b their mean, or 0."""
        b = X.mean(axis=0) if update.intercept else np.zeros(X.shape[1])
        D = initial_atoms(X - b, n_components, update.init, random, nonnegative=update.nonnegative)
        return cls(D, b, Statistics.zeros(*D.shape), np.zeros(n_components, dtype=np.int64), 0)

    def step(
        self,
        X: Matrix,
        Z: csr_array,
        R: Regularizer,
        update: Update,
        random: np.random.Generator,
        *,
        most_weight: float = np.inf,
        dead_after: int = 100_000,
        weights: Any = None,
    ) -> Learned:
        """Return the dictionary after a batch X with codes Z and weights of its samples.

        Atoms that no code has used for `dead_after` samples (and again after as many), and the less used of two equal
        atoms, are replaced by residuals of the worst-reconstructed samples. Sums over earlier samples are cut to a
        weight of `most_weight`. A batch of no samples changes nothing.
        """
        if not len(X):
            return self
        t, S = self.n_steps + 1, self.statistics
        keep = min((S.seen / (S.seen + len(X))) ** update.forgetting, most_weight / S.weight if S.weight else 1.0)
        D, S, Z = update.moved(self.atoms, S, Batch(X, Z, self.intercept, R, keep, weights))
        b = S.intercept(D) if update.intercept else np.zeros(D.shape[1])
        is_used = np.bincount(Z.indices, minlength=len(D)) > 0
        unused_for = np.where(is_used, 0, self.unused_for + len(X))
        which = unused_for // dead_after > np.where(is_used, 0, self.unused_for // dead_after)
        if t % DOUBLES_EVERY == 0:
            which |= doubles(D, S.gram.diagonal(), signed=not R.is_nonnegative)
        if which.any():
            D = with_replacements(D, which, X - b - Z @ D, random, nonnegative=update.nonnegative)
            S = S.rescaled(np.where(which, 0.0, 1.0))
        return Learned(D, b, S, unused_for, t)


def with_options(update: Any, **options: Any) -> Update:
    """Return the update of a name or an object with other options, or raise ValueError."""
    if isinstance(update, str) and update not in UPDATES:
        raise ValueError(f"{', '.join(options)} cannot be set inside update = {update!r}; give {', '.join(UPDATES)}")
    before = update_of(update)
    if unknown := options.keys() - vars(before).keys():
        raise ValueError(f"{before.name} has no option {min(unknown)!r}; it has {', '.join(vars(before))}")
    return replace(before, **options)


def update_of(update: Any) -> Update:
    """Return the update that a name or an object stands for, or raise ValueError."""
    if isinstance(update, str) and update in UPDATES:
        return UPDATES[update]()
    if not isinstance(update, Update):
        names = ", ".join(f'"{name}"' for name in ("auto", "gradient", "frozen", *UPDATES))
        raise ValueError(f"update must be {names} or an object of proxsae.dictionary, got {update!r}")
    return update
