"""At batch scope a whole matrix is one code: what `verify` searches of a class of one's own."""

import numpy as np
import pytest

from proxsae.kernels.top_k import top_k_mask
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.verification import verify


class OfMatrices(NonSeparable, named=False):
    """At most two non-zeros in a matrix of any number of rows."""

    scope = "batch"
    is_indicator = True

    def value_of(self, xp, Z):
        return xp.where((Z != 0).sum() <= 2, 0.0 * Z.sum(-1), xp.inf)

    def prox_of(self, xp, U, t):
        return xp.where(top_k_mask(abs(U).reshape(1, -1), 2).reshape(U.shape), U, 0.0 * U)

    def in_units(self, scale):
        return self


class RowByRow(OfMatrices, named=False):
    def prox_of(self, xp, U, t):
        return xp.where(top_k_mask(abs(U), 1), U, 0.0 * U)


class AnotherSupport(OfMatrices, named=False):
    def prox_of(self, xp, U, t):
        places = np.arange(np.size(U)).reshape(U.shape)
        return xp.where(places < 2, U, 0.0 * U)


class Shrinks(OfMatrices, named=False):
    def prox_of(self, xp, U, t):
        return 0.999 * super().prox_of(xp, U, t)


class Ball(NonSeparable, named=False):
    """The entries of the whole matrix in one ball."""

    scope = "batch"
    is_indicator = is_convex = True

    def value_of(self, xp, Z):
        return xp.where((Z * Z).sum() <= 1 + 1e-9, 0.0 * Z.sum(-1), xp.inf)

    def prox_of(self, xp, U, t):
        return U / xp.maximum((U * U).sum() ** 0.5, 1.0 + 0.0 * U)

    def in_units(self, scale):
        raise NotImplementedError


class BallOfRows(Ball, named=False):
    def prox_of(self, xp, U, t):
        return U / xp.maximum((U * U).sum(-1)[:, None] ** 0.5, 1.0 + 0.0 * U)


def searched(R):
    (check,) = [c for c in verify(R, effort="quick", proof_timeout=0).checks if c.method == "brute force over codes"]
    return check


@pytest.mark.parametrize("R", [OfMatrices(), Ball()], ids=lambda R: type(R).__name__)
def test_a_right_prox_of_matrices_passes(R):
    check = searched(R)
    assert check.verdict == "passed", str(check)
    assert "2 x 3 entries, row after row" in check.covers


@pytest.mark.parametrize("R", [RowByRow(), AnotherSupport(), Shrinks(), BallOfRows()], ids=lambda R: type(R).__name__)
def test_a_wrong_prox_of_matrices_is_refuted_by_a_better_matrix(R):
    check = searched(R)
    assert check.verdict == "failed"
    numbers = check.counterexample
    U, better = numbers["u"].reshape(2, 3), numbers["better z"].reshape(2, 3)
    claimed = R.prox(U, numbers["t"])
    objective = [0.5 * ((Z - U) ** 2).sum() + numbers["t"] * R.value(Z).sum() for Z in (claimed, better)]
    assert objective[1] < objective[0]
