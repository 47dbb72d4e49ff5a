"""F without a minimum, and atoms of zeros, whose codes are up to R alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from proxsae import solve
from proxsae.regularizers import L0, L1, MCP, Box, Cardinality, NonNegative, SquaredL2, Tilt, Translated, parse
from proxsae.solvers.bounded import falls_without_end

OPPOSITE = np.array([[1.0, 0.3], [-1.0, -0.3], [0.0, 1.0]])
X = np.array([[0.7, 0.4]])
FALLING = Tilt(-0.3) + NonNegative()


@given(st.integers(0, 10**6), st.sampled_from([-0.5, -0.1, 0.0]), st.sampled_from([0.0, 0.2]), st.booleans())
def test_it_falls_where_a_direction_says_so(seed, tilt, weight, is_nonnegative):
    rng = np.random.default_rng(seed)
    D = rng.integers(-2, 3, (rng.integers(1, 6), 2)).astype(float)
    tilts = np.where(rng.random(len(D)) < 0.5, tilt, 0.0)
    R = Tilt(tilts) + weight * L1()
    R = R + NonNegative() if is_nonnegative else R
    # the primal program: the steepest descent along h = h+ - h- with hD = 0 and entries of at most 1
    below = 0.0 if is_nonnegative else 1.0
    costs = np.concatenate([tilts + weight, weight - tilts])
    bounds = [(0, 1)] * len(D) + [(0, below)] * len(D)
    steepest = linprog(costs, A_eq=np.concatenate([D, -D]).T, b_eq=np.zeros(2), bounds=bounds).fun
    assert falls_without_end(R, D) == (steepest < -1e-9)


@pytest.mark.parametrize("R", [FALLING, FALLING + 0.01 * L0(), Tilt(0.3), Tilt(-0.3) + 0.1 * L1(), Tilt(-0.3) + MCP()])
def test_a_problem_without_a_minimum_is_refused(R):
    with pytest.raises(ValueError, match="falls without end"):
        solve(X, OPPOSITE, R)


@pytest.mark.parametrize(
    "R",
    [FALLING + 0.3 * L1(), FALLING + SquaredL2(), Tilt(-0.3) + Box(-1.0, 3.0), 1e-3 * MCP(), Tilt(0.3) + NonNegative()],
)
def test_a_problem_with_a_minimum_is_not(R):
    assert solve(X, OPPOSITE, R).converged.all()


def test_independent_atoms_hold_any_tilt():
    assert solve(X, OPPOSITE[1:], FALLING).converged.all()


@pytest.mark.parametrize("method", ["omp", "ols", "mp", "iht", "cosamp", "swap", "exact"])
def test_codes_on_a_support_without_a_minimum_are_not_certified(method):
    s = solve(X, OPPOSITE, FALLING + Cardinality(2), method=method)
    assert s.certificate[0] == np.inf
    assert not s.converged[0]


def test_supports_with_a_minimum_are_certified_whatever_others_do():
    s = solve(X, OPPOSITE, FALLING + Cardinality(1), method="exact")
    assert s.converged.all()
    assert s.certificate_kind == "globally optimal"


ZERO = np.array([[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("method", ["exact", "swap", "omp", "iht"])
def test_a_pursuit_refuses_an_atom_of_zeros_that_its_partner_pulls_away(method):
    with pytest.raises(ValueError, match="atom 1 of D is zero"):
        solve([[1.0, 0.0]], ZERO, parse("Cardinality(2)+Box(-1.,1.)+Tilt(0.2)"), method=method)
    assert solve([[1.0, 0.0]], ZERO, "Cardinality(2)+NonNegative", method=method).codes[0] == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("R", "code", "F"),
    [
        (parse(".1*L0+Box(-1.,1.)+Tilt(0.2)"), [0.8, -1.0], 0.18),
        (parse("Box(-1.,1.)+Tilt(0.2)"), [0.8, -1.0], -0.02),
        (Translated(0.1 * L0(), 0.3), [1.0, 0.3], 0.1),
        (0.1 * L0(), [1.0, 0.0], 0.1),
    ],
)
def test_the_code_of_an_atom_of_zeros_goes_to_where_r_is_least(R, code, F):
    s = solve([[1.0, 0.0]], ZERO, R, method="cd")
    np.testing.assert_allclose(s.codes, [code], rtol=1e-12)
    np.testing.assert_allclose(s.objective, [F], rtol=1e-12)
    assert s.converged.all()


def test_an_atom_of_zeros_at_rest_elsewhere_is_no_coordinate_wise_minimum():
    s = solve([[1.0, 0.0]], ZERO, parse(".1*L0+Box(-1.,1.)+Tilt(0.2)"), method="cd", init=[[0.8, 0.0]], max_iter=0)
    assert s.certificate_kind == "coordinate-wise residual"
    assert not s.converged[0]
