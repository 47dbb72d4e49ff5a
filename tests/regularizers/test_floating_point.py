"""Every prox over the whole range of its dtype, against the same formula read with many digits.

An error is counted in roundings of the inputs; a formula that cancels, overflows or underflows loses thousands.
"""

import numpy as np
import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st
from zoo import JOINT, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae.regularizers import (
    Blocks,
    Cardinality,
    Entmax,
    GroupCardinality,
    GroupL2,
    KSupport,
    KSupportNorm,
    L1Ball,
    L1MinusL2,
    L2Ball,
    LogSum,
    Lq,
    Simplex,
    SquaredL2,
    Tanh,
)
from proxsae.verification.oracles.exact_numbers import (
    XP,
    as_float,
    exact,
    fewer_digits,
    prox_roundings,
    rounded,
    with_parameters,
)
from proxsae.verification.oracles.rounding import DTYPES, FEWER_DECADES, rounding_points

# At weight zero; Entmax takes none, and a translation rounds u - c and so loses what is small beside c.
FREE = [
    0 * R for R in [*SEPARABLE, *SUMS, *JOINT] if not (R.is_indicator or "Translated" in str(R) or "Entmax" in str(R))
]
EXACT = [*SEPARABLE, *SUMS, *FREE, *(R for R in JOINT if not isinstance(R, Entmax))]
TRANSCENDENTAL = [*TRANSCENDENTAL, *(0 * R for R in TRANSCENDENTAL), Entmax(1.5)]


def has_constraint(R):
    """Whether a term has values 0 and infinity alone, which are no exact numbers."""
    return any(term.is_indicator for term in R.terms)


FEW = 64.0  # roundings; half of the digits of float32 would be 4096


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("R", EXACT, ids=str)
def test_a_prox_loses_few_roundings(R, dtype):
    with np.errstate(all="ignore"):
        errors = prox_roundings(R, *rounding_points(dtype, 5, DTYPES[dtype], None))
    assert errors.max() <= FEW


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("R", TRANSCENDENTAL, ids=str)
def test_a_transcendental_prox_loses_few_roundings(R, dtype):
    U, t = rounding_points(dtype, 3, FEWER_DECADES, None)
    few = slice(None, None, 2 if isinstance(R, Entmax) else 1)  # whose exact answers take seconds
    with np.errstate(all="ignore"), fewer_digits():
        errors = prox_roundings(R, U[few], t[few])
    assert errors.max() <= FEW


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("R", [R for R in [*EXACT, *TRANSCENDENTAL] if not has_constraint(R)], ids=str)
def test_a_value_is_exact_or_overflows_where_it_must(R, dtype):
    """At codes of every size, and the largest: never NaN, and infinite only where the value leaves the dtype."""
    limits = np.finfo(dtype)
    U, _ = rounding_points(dtype, 5, DTYPES[dtype], None)
    Z = np.concatenate([U, R.prox(U[:4])])
    values = R.value(Z)
    with fewer_digits():
        exact_values = np.array([as_float(v) for v in with_parameters(rounded(R, dtype), exact).value_on(XP, exact(Z))])
    assert not np.isnan(values).any()
    finite = np.isfinite(exact_values)  # else outside of the domain, whose tolerance is that of floats, or too large
    assert finite.any() or isinstance(R, Entmax | Blocks)
    with np.errstate(over="ignore"):
        expected = exact_values[finite].astype(dtype)
    np.testing.assert_allclose(values[finite], expected, rtol=float(FEW * limits.eps), atol=float(limits.tiny))


@seed(0)
@settings(max_examples=60, deadline=None, database=None)
@given(
    st.sampled_from([R for R in EXACT if R.width is None]),
    st.sampled_from(["float32", "float64"]),
    st.lists(st.floats(-1, 1), min_size=5, max_size=5),
    st.integers(-30, 30),
    st.integers(-3, 3),
)
@example(Simplex(), "float64", [1.0, 1.000000002, 0.999999995, 3e-8, 0.0], 8, 0)
@example(Simplex(), "float64", [1.0, 0.0, 0.0, 0.0, 0.0], 17, 0)
def test_half_of_the_digits_hold(R, dtype, entries, decade, log_step):
    U = (np.array([entries]) * 10.0**decade).astype(dtype)
    step = np.full((1, 1), 10.0**log_step, dtype)
    with np.errstate(all="ignore"):
        errors = prox_roundings(R, U, step)
    assert errors.max() <= np.finfo(dtype).eps ** -0.5


@pytest.mark.parametrize(
    ("R", "u", "dtype", "z"),
    [
        (Simplex(), [1e17, 0.0], "float64", [1.0, 0.0]),
        (L1Ball(1.0), [1e17, 0.0], "float64", [1.0, 0.0]),
        (L2Ball(1.0), [1e20, 1.0, 1.0], "float32", [1.0, 1e-20, 1e-20]),
        (GroupCardinality(1, 2), [1e20, 1e20, 1.2e20, 0.5e20], "float32", [1e20, 1e20, 0.0, 0.0]),
        (0 * GroupL2(1), [1e-30], "float32", [1e-30]),
        (0 * Cardinality(2), [3.0, 1.0, 2.0], "float64", [3.0, 0.0, 2.0]),
        (LogSum(1.0), [1e20], "float32", [1e20]),
        (KSupportNorm(2), [3e200, 4e200], "float64", [3e200, 4e200]),
        (L1MinusL2(), [3e200, 4e200], "float64", [3e200, 4e200]),
        (0 * Lq(0.5), [1e-30], "float32", [1e-30]),
        (0 * Lq(2 / 3), [1e-30], "float32", [1e-30]),
        (0 * Lq(0.3), [1e-30], "float32", [1e-30]),
        (0 * LogSum(1.0), [1e-30], "float32", [1e-30]),
        (0 * Tanh(1.0), [1e-30], "float32", [1e-30]),
    ],
    ids=str,
)
def test_faults_that_shipped(R, u, dtype, z):
    np.testing.assert_array_max_ulp(R.prox(np.array(u, dtype)), np.array(z, dtype), maxulp=16)  # 2/3 takes cube roots


def test_values_that_overflowed():
    assert GroupL2(2).value(np.array([3e20, 4e20], "float32")) == np.float32(5e20 * 2**0.5)
    assert KSupport(2).value(np.array([3e200, 4e200])) == np.inf
    assert (0 * KSupport(2)).value(np.array([3e200, 4e200])) == 0
    assert (np.array([0.0, 1.0]) * SquaredL2()).value(np.array([1e200, 2.0])) == 2
    assert Entmax(1.5).value(np.array([1e200, 2.0])) == np.inf


def test_a_code_of_large_entries_lands_on_the_simplex():
    z = Simplex().prox(np.array([1e8, 1e8 + 0.2, 1e8 - 0.5, 3.0]))
    assert abs(z.sum() - 1) <= 1e-15
    assert Simplex().value(z) == 0
