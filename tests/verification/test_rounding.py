"""What `verify` says of the rounding errors of a prox."""

import mpmath
import numpy as np
import pytest

from proxsae.regularizers import L0, L1, Blocks, Cardinality, FromCvxpy, GroupL0, L1Ball, Numeric, Translated
from proxsae.verification import verify
from proxsae.verification.oracles.exact_numbers import exact


class Cancelling(L1, named=False):
    """Loses the last digits of u beside a large number."""

    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum((xp.abs(u) + 1e9) - (t + 1e9), 0)


class Squaring(L1, named=False):
    """Overflows where u is far from 1."""

    def prox_of(self, xp, u, t):
        return xp.sign(u) * xp.maximum(xp.sqrt(u * u) - t, 0)


def rounding(R):
    report = verify(R, effort="quick", proof_timeout=0, steps=(1.0,))
    (check,) = [check for check in report.checks if check.method == "rounding errors"]
    return check


@pytest.mark.parametrize("R", [0.3 * L1(), "0.5*Lq(0.5)", "0.3*KSupport(2)", "L1 + Cardinality(2)"], ids=str)
def test_the_largest_error_is_printed(R):
    check = rounding(R)
    assert check.verdict == "passed"
    first, second = (float(part.split()[0]) for part in check.covers.replace(" and ", "at most ").split("at most ")[1:])
    assert 0 < max(first, second) < 10
    assert "float32 (u from 1e-" in check.covers
    assert "roundings" in str(check)


TRANSLATED = [
    Translated(0.01 * L0(), np.array([0.5, 0.2])),
    Translated(0.1 * GroupL0(2), 0.5),
    Blocks([(Translated(L1Ball(2.0), 0.5), 2), (L1(), 1)]),
]


@pytest.mark.parametrize("R", TRANSLATED, ids=str)
def test_a_small_code_beside_a_center_is_judged_by_the_digits_of_the_center(R):
    assert rounding(R).verdict == "passed"


def test_a_large_center_of_another_code_hides_no_lost_digits():
    assert rounding(Translated(Cancelling(), np.array([1e9, 0.1]))).verdict == "failed"


def test_lost_digits_are_found_where_u_is_ordinary():
    check = rounding(Cancelling())
    assert check.verdict == "failed"
    assert check.reason == "more than half of the digits of float32 are lost"
    numbers = check.counterexample
    np.testing.assert_allclose(numbers["exact z"], L1().prox(numbers["u"], numbers["t"]), rtol=1e-5)
    assert not np.allclose(numbers["claimed z"], numbers["exact z"], rtol=1e-3)
    assert "at most 1e+300 in float32" in rounding(Squaring()).covers


@pytest.mark.parametrize("R", [Numeric(abs), FromCvxpy(lambda z: 0.0), Cardinality(2, "batch")], ids=str)
def test_what_is_no_formula_of_single_codes_is_left_out(R):
    if isinstance(R, FromCvxpy):
        import cvxpy

        R = FromCvxpy(cvxpy.norm1)
    assert rounding(R).verdict == "skipped"


def test_an_exact_number_becomes_no_float_and_those_of_mpmath_still_do():
    with pytest.raises(TypeError, match="must not become a float"):
        float(exact(0.5)[()])
    assert float(mpmath.mpf(0.5)) == float(mpmath.MPContext().mpf(0.5)) == 0.5
