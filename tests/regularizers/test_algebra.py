"""The algebra: sums and multiples, refusals, traits, spelling, rescaling, and a light import."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from zoo import PER_COORDINATE, SEPARABLE, SUMS

from proxsae.regularizers import (
    L0,
    L1,
    MCP,
    Box,
    Cardinality,
    LInfBall,
    Lq,
    NonNegative,
    Regularizer,
    SquaredL2,
    Zero,
    get,
    naming,
    parse,
)

SELECTIONS = [
    Cardinality(2),
    Cardinality(2, "batch"),
    NonNegative() + Cardinality(2),
    0.3 * L1() + NonNegative() + Cardinality(2),
    PER_COORDINATE * L1() + Cardinality(2, "batch"),
]
ALL = [*SEPARABLE, *SUMS, *SELECTIONS]
U = np.random.default_rng(0).normal(size=(40, 5)) * 2

# --- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("R", [R for R in ALL if len(R.terms) > 1], ids=repr)
def test_order_of_the_terms_does_not_matter(R):
    for order in itertools.permutations(R.terms):
        total = order[0]
        for term in order[1:]:
            total = total + term
        np.testing.assert_array_equal(total.prox(U, 0.7), R.prox(U, 0.7))
        np.testing.assert_allclose(total.value(R.prox(U, 0.7)), R.value(R.prox(U, 0.7)), rtol=1e-14)


@pytest.mark.parametrize("R", [R for R in ALL if len(R.terms) > 1 and "batch" not in repr(R)], ids=repr)
def test_value_of_a_sum_is_the_sum_of_the_values(R):
    Z = np.concatenate([R.prox(U, 0.7), U])
    np.testing.assert_allclose(R.value(Z), sum(term.value(Z) for term in R.terms), rtol=1e-14)


@pytest.mark.parametrize(
    ("total", "merged"),
    [
        (0.1 * L1() + 0.2 * L1(), (0.1 + 0.2) * L1()),
        (0.5 * L0() + L0(), 1.5 * L0()),
        (SquaredL2() + SquaredL2(), 2.0 * SquaredL2()),
        (NonNegative() + NonNegative(), NonNegative()),
        (NonNegative() + Box(-1.0, 2.0), Box(0.0, 2.0)),
        (Box(-1.0, 2.0) + Box(-3.0, 1.0), Box(-1.0, 1.0)),
        (LInfBall(1.0) + LInfBall(2.0), Box(-1.0, 1.0)),
        (L1() + LInfBall(1.0), L1() + Box(-1.0, 1.0)),
        (Zero() + L1(), L1()),
        (Zero() + Zero(), Zero()),
        (Zero() + Cardinality(3), Cardinality(3)),
        (Cardinality(3) + Cardinality(2), Cardinality(2)),
        (L1() + Cardinality(3) + L1() + Cardinality(4), 2.0 * L1() + Cardinality(3)),
        (2.0 * (L1() + 0.5 * SquaredL2()), 2.0 * L1() + SquaredL2()),
        (L1() * 2.0, 2.0 * L1()),
        (2.0 * (0.5 * L1() + NonNegative()), L1() + NonNegative()),
        (3.0 * (0.5 * L0() + Cardinality(2)), 1.5 * L0() + Cardinality(2)),
        (np.array([1.0, 2.0]) * L1() + L1(), np.array([2.0, 3.0]) * L1()),
        (4.0 * NonNegative(), NonNegative()),
    ],
    ids=repr,
)
def test_terms_merge(total, merged):
    assert total == merged
    assert repr(total) == repr(merged)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: Box(0.25, 1.0) + Cardinality(2), ["Box(0.25, 1.0)", "Cardinality(2)"]),
        (lambda: Box(0.25, 1.0) + L0(), ["Box(0.25, 1.0)", "L0()"]),
        (lambda: Cardinality(2) + Cardinality(2, "batch"), ["Cardinality(2)", 'Cardinality(2, "batch")']),
    ],
)
def test_sums_without_a_rule_name_the_two_terms(build, names):
    with pytest.raises(ValueError, match="no calculus rule gives the exact prox of") as refusal:
        build()
    for name in names:
        assert f"({name})" in str(refusal.value)


@pytest.mark.parametrize("other", [1, "L1", None, np.ones(2)])
def test_only_regularizers_add(other):
    with pytest.raises(TypeError):
        L1() + other


def test_regularizers_do_not_multiply():
    with pytest.raises(TypeError):
        L1() * L1()
    with pytest.raises(TypeError):
        "2" * L1()


def test_regularizers_are_immutable():
    with pytest.raises(AttributeError):
        L1().weight = 2.0


@pytest.mark.parametrize("number", [2, np.float32(2), np.float64(2), np.array(2.0)], ids=repr)
def test_weight_of_any_kind_of_number(number):
    assert number * L1() == L1() * number == L1(weight=2.0)


def test_weight_of_a_tensor_keeps_its_graph():
    weight = torch.tensor([0.5, 1.0], requires_grad=True)
    R = weight * L1() + NonNegative()
    R.value(torch.tensor([1.0, 2.0], requires_grad=True)[None]).sum().backward()
    assert weight.grad.tolist() == [1.0, 2.0]


# --- traits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("R", "traits"),
    [  # convex, separable, non-negative, scale-free, scope
        (Zero(), (True, True, False, True, "coordinate")),
        (L1(), (True, True, False, False, "coordinate")),
        (L0(), (False, True, False, False, "coordinate")),
        (SquaredL2(), (True, True, False, False, "coordinate")),
        (NonNegative(), (True, True, True, True, "coordinate")),
        (Box(-1.0, 1.0), (True, True, False, False, "coordinate")),
        (Box(0.0, 1.0), (True, True, True, False, "coordinate")),
        (L1() + NonNegative(), (True, True, True, False, "coordinate")),
        (L0() + NonNegative(), (False, True, True, False, "coordinate")),
        (L1() + SquaredL2(), (True, True, False, False, "coordinate")),
        (L1() + L0(), (False, True, False, False, "coordinate")),
        (Cardinality(2), (False, False, False, True, "sample")),
        (NonNegative() + Cardinality(2), (False, False, True, True, "sample")),
        (NonNegative() + Cardinality(2, "batch"), (False, False, True, True, "batch")),
        (L1() + Cardinality(2), (False, False, False, False, "sample")),
    ],
    ids=repr,
)
def test_traits(R, traits):
    assert (R.is_convex, R.is_separable, R.is_nonnegative, R.is_scale_free, R.scope) == traits


@pytest.mark.parametrize("R", ALL, ids=repr)
def test_traits_hold(R):
    Z = R.prox(U)
    if R.is_nonnegative:
        assert (Z >= 0).all()
        assert np.isinf(R.value(-np.ones(5)))
    if R.is_scale_free:
        np.testing.assert_array_equal(R.prox(U, 17.0), Z)
        np.testing.assert_array_equal(R.prox(3.0 * U), 3.0 * Z)
    if R.is_convex:
        V = U[::-1]
        difference = R.prox(U) - R.prox(V)
        assert ((difference * (U - V)).sum(-1) >= (difference**2).sum(-1) - 1e-12).all()
    if R.is_separable:
        halves = [R.at(np.arange(5)[part]).prox(U[:, part]) for part in (slice(0, 2), slice(2, 5))]
        np.testing.assert_array_equal(np.concatenate(halves, axis=1), Z)
    if R.scope != "batch":
        np.testing.assert_array_equal(R.prox(U[7:9]), Z[7:9])


# --- spelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "R"),
    [
        ("0.1*L1 + NonNegative", 0.1 * L1() + NonNegative()),
        ("L1", L1()),
        ("Cardinality(32)", Cardinality(32)),
        ('Cardinality(k=32, scope="batch")', Cardinality(32, "batch")),
        ("2*(L1 + 0.5*L0)", 2.0 * L1() + L0()),
        ("Box(-1, 2)", Box(-1.0, 2.0)),
        ("LInfBall(0.5)", Box(-0.5, 0.5)),
        ("CEL0(2.0, 0.5)", 2.0 * MCP(0.5)),
        ("0.5*SquaredL2() + L1*2", 0.5 * SquaredL2() + 2.0 * L1()),
    ],
)
def test_parse(text, R):
    assert parse(text) == R


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1*L2", "unknown regularizer 'L2' in '0.1\\*L2'; known are"),
        ("L1 +", "cannot read the regularizer"),
        (f"0x{10_000 * 'f'}*L1", "a number in the regularizer '0xf+...' is beyond the range of floats"),
        ("0.1", "is not a regularizer, it is float"),
        ("__import__('os')", "unknown regularizer '__import__'"),
        ("L1.weight", "cannot read the regularizer 'L1.weight' at 'L1.weight'"),
        ("L1 - L0", "cannot read the regularizer 'L1 - L0' at 'L1 - L0'"),
        ("Cardinality", "Cardinality in 'Cardinality': .*k"),
        ("Cardinality(4.5)", r"^Cardinality in 'Cardinality\(4.5\)': k must be an integer >= 0, got 4.5$"),
        ("Cardinalty(3)", r"'Cardinalty' in 'Cardinalty\(3\)', did you mean Cardinality\?; known are AsymmetricL0, "),
        ("-0.1*L1", "the weight must not be negative"),
        ("[L1 for L1 in L1]", "cannot read"),
        ("True*L1", "cannot read"),
        ("Cardinality(**{1: 2})", "cannot read"),
        ("(" * 100_000, "cannot read"),
        ("-" * 100_000 + "1", "nested too deep"),
        ("L1 + " * 50_000 + "L1", "nested too deep"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_parse_refuses_a_name_of_two_builders(monkeypatch):
    monkeypatch.setitem(naming.CLASSES, "CEL0", {"mine": L1})
    with pytest.raises(ValueError, match=r"belongs to classes of mine and of .*concave: rename one"):
        parse("CEL0")


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("relu", {"lam": 0.5}, [1.5, 0, 0, 0.1]),
        ("jumprelu", {"lam": 0.5}, [2, 0, 0, 0]),
        ("topk", {"k": 1}, [2, 0, 0, 0]),
        ("abstopk", {"k": 1}, [0, -3, 0, 0]),
        ("batchtopk", {"k": 2}, [2, 0, 0, 0.6]),
        ("batchabstopk", {"k": 2}, [2, -3, 0, 0]),
        ("soft", {"lam": 0.5}, [1.5, -2.5, 0, 0.1]),
        ("hard", {"lam": 0.5}, [2, -3, 0, 0]),
        ("elasticnet", {"lam": 0.5, "ridge": 1.0}, [0.75, -1.25, 0, 0.05]),
        ("softtopk", {"lam": 0.5, "k": 1}, [0, -2.5, 0, 0]),
    ],
)
def test_activations_by_name(name, parameters, expected):
    np.testing.assert_allclose(get(name, **parameters).prox([2.0, -3.0, 0.5, 0.6]), expected, atol=1e-15)


def test_unknown_activation_and_wrong_parameters():
    with pytest.raises(ValueError, match="unknown activation 'gelu'; known are relu"):
        get("gelu")
    with pytest.raises(TypeError, match="'topk' takes k; got lam"):
        get("topk", lam=1.0)
    with pytest.raises(TypeError, match="'relu' takes lam; got nothing"):
        get("relu")


def test_no_regularizer_is_another():
    for R in ALL:
        assert R != "L1"
        assert sum(other == R for other in ALL) == 1


# --- latex -----------------------------------------------------------------------------------------------------------


def test_latex_shows_the_formula_that_runs():
    assert r"\sqrt{2} \sqrt{t}" in L0().latex("prox").replace(r"\sqrt{2 t}", r"\sqrt{2} \sqrt{t}")
    assert r"\left|{z_{i}}\right|" in L1().latex()
    assert r"\|z\|_0 \le 7" in (0.1 * L1() + Cardinality(7)).latex()
    assert r"\|Z\|_0 \le 7\,n" in Cardinality(7, "batch").latex()
    assert r"2\,n \text{ largest gains" in Cardinality(2, "batch").latex("prox")
    assert Lq(0.5).latex("prox").count(r"\begin{cases}") == 1  # without the guard of the branch not taken
    with pytest.raises(ValueError, match='latex prints "value" or "prox", got \'gradient\''):
        L1().latex("gradient")


# --- import ----------------------------------------------------------------------------------------------------------


def test_import_is_light():
    heavy = ["torch", "cvxpy", "numba", "z3", "transformers", "sympy", "mpmath", "datasets", "pyscipopt", "matplotlib"]
    use = "R = r.parse('0.1*L1 + NonNegative') + r.Cardinality(2); R.prox([1.0, -2.0, 3.0]); R.value([1.0, 0.0, 0.0])"
    code = (
        "import sys, proxsae, proxsae.regularizers as r, proxsae.verification\n"
        f"{use}\nprint([m for m in {heavy} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Regularizer()


def test_python_sums_regularizers():
    assert sum([0.1 * L1(), NonNegative()]) == 0.1 * L1() + NonNegative()
    with pytest.raises(TypeError):
        1 + L1()
