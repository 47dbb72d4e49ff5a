r"""Methods for at most k non-zeros: :math:`F(z) = \frac12\|y - zD\|^2 + \sum_i r_i(z_i)` where :math:`\|z\|_0 \le k`.

The methods work on the Gram matrix, compiled, a sample at a time, with their own stopping rules. Above 20,000 atoms the
rows of the Gram matrix are computed as atoms enter, and kept within the memory of a Gram matrix of 20,000 atoms. The
gain of an atom is the fall of F when its code is freed from zero: s g(c / s, 1 / s), with g the gain of r_i (the gain
rule), c the correlation with the residual, and s a curvature. For r = 0 the gain is :math:`c^2 / 2s`.

- ``omp``, orthogonal matching pursuit, adds the atom of the largest abs(c): the gain with the other codes held, s =
  ||d||^2, times ||d||^2. Pati, Rezaiifar and Krishnaprasad (1993), Asilomar Conf.; on the Gram matrix with a growing
  Cholesky factor, Rubinstein, Zibulevsky and Elad (2008), Technion CS-2008-08.
- ``ols``, orthogonal least squares, adds the atom that lowers F most once all codes follow: s is the part of ||d||^2
  outside the span of the atoms in use. Chen, Billings and Luo (1989), Int. J. Control 50; where codes must not be
  negative, Nguyen, Soussen, Idier and Djermoune (2019), ICASSP. Where r is curved, or a code comes to rest at a kink, s
  is an approximation.
- ``mp``, matching pursuit, changes the one code that lowers F most, with at most k in use. Mallat and Zhang (1993),
  IEEE Trans. Signal Process. 41.
- ``htp``, hard thresholding pursuit, takes the support of a proximal-gradient step and refits, until it stays. Foucart
  (2011), SIAM J. Numer. Anal. 49.
- ``iht``, iterative hard thresholding, takes proximal-gradient steps as long as the support allows, in which F falls.
  Blumensath and Davies (2010), IEEE J. Sel. Top. Signal Process. 4.
- ``cosamp`` refits on the atoms in use and the 2k that ``omp`` would add, keeps the k whose codes are worth most,
  refits, and ends when F falls no more. Needell and Tropp (2009), Appl. Comput. Harmon. Anal. 26.
- ``swap`` starts at the better of ``omp`` and ``ols`` and exchanges one atom for another, all codes following, until no
  exchange lowers F. Where r is not convex, the other codes are refitted when an atom leaves, held while atoms are
  priced, and refitted after one enters. An exchange that pays only after this last refit is missed: the certificate is
  "fixed point". Beck and Eldar (2013), SIAM J. Optim. 23; Soussen, Idier, Brie and Duan (2011), IEEE Trans. Signal
  Process. 59.

On image patches of 16 x 16 pixels over 1,024 of them, at k = 32, the squared error of ``ols`` is 17 % below that of
``omp``, and that of ``swap`` 25 %; on 2,000 residuals of SmolLM2-135M after block 15 over 8,192 others 5 % and 10 %.
``python benchmarks/solve.py --activations`` prints them.

Without a partner, up to 16,000 atoms, ``omp`` and ``ols`` compare all atoms in float32, and those that may be best in
the precision of the codes, see :mod:`proxsae.solvers.pursuits.compiled_shortlist`.

At the end the codes of all but ``mp`` and ``iht`` are refitted on their support: least squares, non-negative least
squares, or a local minimum where r is not convex. Atoms in the span of those in use are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from proxsae.formulas.arrays import Array
from proxsae.regularizers import Cardinality, Regularizer, Separable, Zero
from proxsae.solvers.algorithm import Direct, Ended
from proxsae.solvers.bounded import check_zero_atoms
from proxsae.solvers.problem import GRAM_LIMIT
from proxsae.solvers.pursuits.certified import Certifier
from proxsae.solvers.pursuits.supports import Supports, fill, room_for
from proxsae.solvers.scalar import scalar_prox
from proxsae.solvers.threads import by_blocks, gram_of, n_threads

ORTHOGONAL = 1e-14  # a cosine that is zero
PAIR = 0.8  # of the atoms: Gram matrices in float64 and float32 take as much as the largest in float64
EXACT_ATOMS = 2048  # up to which a first look in float32 leaves room for the Gram matrix in float64
FARTHEST = 20.0  # units of atoms, as powers of two, whose squares are weights in float32


@dataclass(frozen=True)
class Pursuit:
    """A method over one dictionary, ready for samples."""

    method: str
    dictionary: Array  # NumPy, in the working dtype
    regularizer: Cardinality
    step: float  # of htp, and the least of iht
    gram_limit: int = GRAM_LIMIT  # atoms whose Gram matrix is kept
    rooms: list[Any] = field(default_factory=list)  # for rows of the Gram matrix, that no thread has now

    def __post_init__(self) -> None:
        check_zero_atoms(self.penalty, self.dictionary)

    @property
    def k(self) -> int:
        """The non-zeros allowed."""
        return min(self.regularizer.k, len(self.dictionary))

    @property
    def penalty(self) -> Separable:
        """The partner of the cardinality."""
        return self.regularizer.partner

    @property
    def is_signed(self) -> bool:
        """Whether codes have no penalty: then squares alone decide, and every step has a closed form."""
        return isinstance(self.penalty, Zero) and self.method in ("omp", "ols", "swap")

    @cached_property
    def units(self) -> Array:
        """Powers of two near the norms of the atoms: divided by them, nothing rounds and no square overflows."""
        if not self.is_signed:
            return np.ones(len(self.dictionary))
        units = _powers_of_two(np.abs(self.dictionary).max(1))
        scaled = self.dictionary / units[:, None]
        return units * _powers_of_two(np.sqrt(np.einsum("ij,ij->i", scaled, scaled)))

    @cached_property
    def atoms(self) -> Array:
        """The atoms in their units; in float64 for exchanges and penalties."""
        dtype = self.dictionary.dtype if self.is_signed and self.method != "swap" else np.dtype(np.float64)
        return np.ascontiguousarray(self.dictionary / self.units[:, None], dtype)

    @cached_property
    def gram(self) -> Array:
        """Their Gram matrix."""
        return gram_of(self.atoms)

    @cached_property
    def keeps_gram(self) -> bool:
        """Whether the Gram matrix is kept in the precision of the codes; else its rows are made on demand."""
        is_rarely_read = self.looks_first and self.method != "swap" and self.atoms.dtype == np.float64
        return len(self.atoms) <= (EXACT_ATOMS if is_rarely_read else self.gram_limit)

    @contextmanager
    def rows_of_gram(self) -> Iterator[Any]:
        """Lend its rows to a thread."""
        from proxsae.solvers.pursuits.compiled_gram import all_rows, on_demand

        if self.keeps_gram:
            yield all_rows(self.gram)
            return
        p = len(self.atoms)
        capacity = max(self.k, self.gram_limit**2 // (p * n_threads()))
        rows = self.rooms.pop() if self.rooms else on_demand(self.atoms, min(capacity, p))
        yield rows
        self.rooms.append(rows)

    @cached_property
    def looks_first(self) -> bool:
        """Whether pursuits look at all atoms in float32 first, and there is room for that.

        There is not where units are far apart and weights, as in "omp".
        """
        is_near = self.method == "ols" or float(np.ptp(np.log2(self.units))) <= FARTHEST
        return self.is_signed and len(self.atoms) <= PAIR * self.gram_limit and is_near

    @cached_property
    def coarse(self) -> tuple[Array, Array] | None:
        """The atoms and their Gram matrix in float32, for a first look at all atoms."""
        if not self.looks_first:
            return None
        gram = self.gram.astype(np.float32, copy=False) if self.keeps_gram else gram_of(self.atoms, np.float32)
        return self.atoms.astype(np.float32, copy=False), gram

    @cached_property
    def diagonal(self) -> Array:
        """The squared norms of the atoms."""
        return np.einsum("ij,ij->i", self.atoms, self.atoms)

    @cached_property
    def formulas(self) -> tuple[Any, Any, Array]:
        """The compiled prox and value of the partner, and its parameters."""
        return scalar_formulas(self.penalty, len(self.dictionary))

    @cached_property
    def certifier(self) -> Certifier:
        """The certifier of the codes."""
        norms = np.sqrt(self.diagonal.astype(np.float64)) * self.units
        return Certifier(self.dictionary, norms, self.penalty, self.k)

    @cached_property
    def strongest(self) -> str | None:
        """The kind of certificate that the method gives by itself."""
        if self.method != "swap":
            return None
        if self.k <= 1 or self._is_orthogonal():
            return "globally optimal"
        return "swap-optimal" if self.penalty.is_convex else None  # else exchanges are priced with the others held

    def _is_orthogonal(self) -> bool:
        """Whether the atoms are orthogonal, so that the gain of an atom does not depend on the others."""
        if np.count_nonzero(self.diagonal) > self.dictionary.shape[1]:
            return False
        lengths = np.sqrt(self.diagonal)
        cosines = np.abs(self.gram - np.diag(self.diagonal))
        return bool((cosines <= ORTHOGONAL * lengths * lengths[:, None]).all())

    def run(self, Y: Array, init: Array | None, tol: float, max_iter: int) -> Ended:
        """Return codes of the targets Y, from `init` where the method takes one."""
        scale = _powers_of_two(np.abs(Y).max(1, initial=0.0)) if self.is_signed else np.ones(len(Y))
        T = np.ascontiguousarray(Y / scale[:, None], self.atoms.dtype)
        energies = np.einsum("ij,ij->i", T, T, dtype=np.float64).astype(T.dtype)
        found = room_for(len(Y), self.k, T.dtype)
        if init is not None:
            fill(found, np.where(self.diagonal > 0.0, init * (self.units / scale[:, None]), 0.0))
        if self.k:
            # before threads ask, each of which would make its own
            _ = self.keeps_gram and self.gram, self.coarse, self.is_signed or self.formulas
            run = self._run_signed if self.is_signed else self._run_penalized

            def work(rows: slice) -> None:
                with self.rows_of_gram() as G:
                    run(T[rows], energies[rows], G, found.at(rows), init is not None, max_iter)

            by_blocks(work, len(T))
        codes = (found.codes * (scale[:, None] / self.units[found.atoms])).astype(Y.dtype)
        found = found._replace(codes=codes, falls=found.falls * scale**2)
        return self.certifier.ended(Y, found, tol, self.strongest)

    def _run_signed(self, T: Array, energies: Array, G: Any, found: Supports, is_warm: bool, max_iter: int) -> None:
        if self.method != "swap":
            self._pursue(self.method, T, energies, G, found)
            return
        from proxsae.solvers.pursuits.compiled_exchange import exchange_rows

        starts = [room_for(len(T), self.k, T.dtype) for _ in range(2)]
        for method, start in zip(("omp", "ols"), starts, strict=True):
            self._pursue(method, T, energies, G, start)
        self._take_best(T, found, starts, is_warm)
        of_codes = found.atoms, found.counts, max_iter, found.codes, found.falls, found.n_iter
        exchange_rows(T @ self.atoms.T, energies, G, self.diagonal, self.k, *of_codes)

    def _pursue(self, method: str, T: Array, energies: Array, G: Any, found: Supports) -> None:
        """Run "omp" or "ols": in two precisions where that is possible and decides, elsewhere in one."""
        from proxsae.solvers.pursuits import compiled_pursuit, compiled_shortlist

        by_error = method == "ols"
        weight = self.diagonal if by_error else ((self.units.max() / self.units) ** 2).astype(T.dtype)
        of_atoms = self.diagonal, weight, self.k, by_error
        rows: Any = slice(None)
        if self.coarse is not None:
            atoms, gram = self.coarse
            exact = self.gram if self.keeps_gram else self.atoms[:0]
            C = T.astype(np.float32, copy=False) @ atoms.T
            compiled_shortlist.pursue_rows(
                C, T, energies, self.atoms, exact, gram, *of_atoms, found.atoms, found.codes, found.counts
            )
            rows = np.flatnonzero(found.counts < 0)
        if self.coarse is None or len(rows):
            left = [np.ascontiguousarray(part[rows]) for part in (found.atoms, found.codes, found.counts)]
            compiled_pursuit.pursue_rows(T[rows] @ self.atoms.T, energies[rows], G, *of_atoms, *left)
            found.atoms[rows], found.codes[rows], found.counts[rows] = left
        found.n_iter[:] = found.counts

    def _run_penalized(self, T: Array, energies: Array, G: Any, found: Supports, is_warm: bool, max_iter: int) -> None:
        if self.method in ("htp", "iht", "cosamp"):
            from proxsae.solvers.pursuits.compiled_threshold import threshold_rows as run_rows
        else:
            from proxsae.solvers.pursuits.compiled_partner import pursue_rows as run_rows

        C = T @ self.atoms.T

        def pursue(method: str, new: Supports) -> Supports:
            run_rows(
                *self.formulas, C, energies, G, self.diagonal, self.k, method,
                self.penalty.is_convex, max_iter, self.step, *new,
            )  # fmt: skip
            return new

        if self.method == "swap":
            starts = [pursue(method, room_for(len(T), self.k, T.dtype)) for method in ("omp", "ols")]
            self._take_best(T, found, starts, is_warm)
        pursue(self.method, found)

    def _take_best(self, T: Array, mine: Supports, starts: list[Supports], is_warm: bool) -> None:
        """Copy for each sample the start of lowest F to `mine`, which may be one of the starts."""
        values = [self.certifier.fit(T, self.atoms, start)[0] for start in starts]
        if is_warm:
            values.insert(0, self.certifier.fit(T, self.atoms, mine)[0])
        best = np.argmin(values, axis=0) - is_warm
        for i, start in enumerate(starts):
            for to, part in zip(mine, start, strict=True):
                to[best == i] = part[best == i]


def _powers_of_two(sizes: Array) -> Array:
    sizes = np.asarray(sizes, np.float64)
    return np.exp2(np.round(np.log2(np.where(sizes > 0, sizes, 1.0))))


def scalar_formulas(r: Separable, n_components: int) -> tuple[Any, Any, Array]:
    """Return the compiled prox and value of r, and its parameters, a row an atom."""
    import numba

    from proxsae.formulas.numba import compiled

    double = np.dtype(np.float64)
    prox, parameters = scalar_prox(r, double, double)
    value = compiled(r, "value")
    value.compile((numba.float64, numba.float64[::1]))
    return prox, value, np.repeat(parameters, n_components // len(parameters), axis=0)


def refuses_partner(R: Regularizer) -> str | None:
    """Return in one sentence what is missing where R is not a Cardinality with a partner that can be compiled."""
    if not isinstance(R, Cardinality) or R.scope != "sample":
        return f"needs a Cardinality of each sample, alone or with a separable partner, and {R} is none"
    if not R.partner.has_formula:
        return f"needs a partner with a formula that can be compiled, and {R.partner} has none"
    return None


def _named(method: str, *, takes_init: bool = False, has_step: bool = False) -> Direct:
    return Direct(partial(Pursuit, method), refuses_partner, takes_init, has_step)


PURSUITS: dict[str, Direct] = {
    "omp": _named("omp"),
    "ols": _named("ols"),
    "mp": _named("mp"),
    "htp": _named("htp", takes_init=True, has_step=True),
    "iht": _named("iht", takes_init=True, has_step=True),
    "cosamp": _named("cosamp", takes_init=True),
    "swap": _named("swap", takes_init=True),
}
