"""The LaTeX reader of a formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.formulas.arrays import ArrayNamespace, Equation
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.basic import Zero
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.nonseparable_sums import NonSeparableSum
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.sums import WithCount, WithTilt

LONGEST = 1000  # characters; a longer formula cannot be read, and its definition is printed instead


def latex(regularizer: Regularizer, of: str) -> str:
    """Return the value or the prox of a regularizer as LaTeX mathematics.

    Raises
    ------
    ValueError
        If `of` is neither "value" nor "prox".
    """
    if of not in ("value", "prox"):
        raise ValueError(f'latex prints "value" or "prox", got {of!r}')
    if isinstance(regularizer, Cardinality):
        return _latex_of_cardinality(regularizer, of)
    if isinstance(regularizer, NonSeparable | NonSeparableSum):
        return _latex_of_joint(regularizer, of)
    assert isinstance(regularizer, Separable)
    if of == "prox":
        return rf"\mathrm{{prox}}_{{tR}}(u)_i = {_prox(regularizer, _symbol('u'))}"
    return rf"R(z) = \sum_i {_value(regularizer)}"


def _latex_of_cardinality(regularizer: Cardinality, of: str) -> str:
    bound = {"sample": r"\|z\|_0 \le %d", "batch": r"\|Z\|_0 \le %d\,n"}[regularizer.scope] % regularizer.k
    if of == "value":
        partner = "" if isinstance(regularizer.separable, Zero) else rf" + \sum_i {_value(regularizer.separable)}"
        return rf"R(z) = \iota_{{\{{{bound}\}}}}(z){partner}"
    partner = _prox(regularizer.separable, _symbol("u"))
    where = rf"i \text{{ among the {regularizer.k} largest gains of the {regularizer.scope}}}"
    return rf"\mathrm{{prox}}_{{tR}}(u)_i = \begin{{cases}} {partner} & {where} \\ 0 & \text{{otherwise}} \end{{cases}}"


def _latex_of_joint(regularizer: NonSeparable | NonSeparableSum, of: str) -> str:
    if of == "value":
        return "R(z) = " + " + ".join(_term(term) for term in regularizer.terms)
    if isinstance(regularizer, NonSeparable):
        weight = "" if regularizer.is_indicator else rf", \quad w = {_printed(float(regularizer.weight))}"
        return regularizer.prox_latex + (weight if " w " in regularizer.prox_latex else "")
    value = _latex_of_joint(regularizer, "value").removeprefix("R(z) = ")
    return rf"\mathrm{{prox}}_{{tR}}(u) = \operatorname*{{arg\,min}}_z \tfrac12 \|z - u\|^2 + t \left({value}\right)"


def _term(term: Regularizer) -> str:
    if isinstance(term, Separable):
        return rf"\sum_i {_value(term)}"
    assert isinstance(term, NonSeparable)
    plain = term.is_indicator or float(term.weight) == 1.0
    return term.value_latex if plain else rf"{_printed(float(term.weight))} \cdot {term.value_latex}"


def _prox(r: Separable, u: Any) -> str:
    import sympy

    t = sympy.Symbol("t", positive=True)
    if isinstance(r, WithTilt):
        shifted = _printed(_symbolic(r.outer).weighted_prox(_namespace(), u, t))
        return rf"\left. {_prox(r.inner, _symbol('v'))} \right|_{{v_i = {shifted}}}"
    if isinstance(r, WithCount):
        # The gain written out would repeat the prox five times: name it, as the rule does.
        count = _printed(t * _symbolic(r.outer).weight)
        worth = rf"{_prox(r.inner, u)} & \text{{where its gain exceeds }} {count}"
        return rf"\begin{{cases}} {worth} \\ 0 & \text{{otherwise}} \end{{cases}}"
    formula = _printed(_symbolic(r).weighted_prox(_namespace(), u, t))
    if len(formula) <= LONGEST:
        return formula
    return rf"\operatorname*{{arg\,min}}_{{z_i}} \tfrac12 (z_i - {_printed(u)})^2 + t \left({_value(r)}\right)"


def _value(r: Separable) -> str:
    return _printed(_symbolic(r).weighted_value(_namespace(), _symbol("z")))


def _decided(expression: Any, condition: Any, branch: int) -> Any:
    """Return the expression with every Piecewise on this very condition replaced by its branch."""
    import sympy

    def on_condition(part: Any) -> bool:
        return isinstance(part, sympy.Piecewise) and len(part.args) == 2 and part.args[0].cond == condition

    return expression.replace(on_condition, lambda part: part.args[branch].expr)


def _exact(expression: Any) -> Any:
    """Return the expression with fractions for floats, so that equal conditions compare equal."""
    import sympy

    expression = sympy.sympify(expression)
    floats = expression.atoms(sympy.Float)
    return expression.xreplace({number: sympy.nsimplify(number, rational=True) for number in floats})


def _symbol(name: str) -> Any:
    import sympy

    return sympy.Symbol(f"{name}_i", real=True)


def _printed(expression: Any) -> str:
    import sympy

    return str(sympy.latex(sympy.nsimplify(expression, rational=True)))


def _symbolic(r: Separable) -> Separable:
    """Return a copy with exact numbers and symbols for parameters."""
    import sympy

    def number(name: str, value: Any) -> Any:
        last = name.rsplit(".", 1)[-1]
        return sympy.nsimplify(float(value)) if np.ndim(value) == 0 else _symbol("w" if last == "weight" else last)

    return r.map_parameters(number)


def _namespace() -> Any:
    import sympy

    zeta = sympy.Symbol(r"\zeta", positive=True)

    class Root(sympy.Function):  # type: ignore[misc]
        """The root of an equation in zeta, in an interval."""

        is_real = True

        def _latex(self, printer: Any) -> str:
            left, low, high = (printer.doprint(argument) for argument in self.args)
            return rf"\operatorname{{root}}_{{{low} \le \zeta \le {high}}}\left[{left} = 0\right]"

    class SympyNamespace:
        """The functions a formula may call, as expressions."""

        inf = sympy.oo
        abs, sign, maximum, minimum, tanh = sympy.Abs, sympy.sign, sympy.Max, sympy.Min, sympy.tanh
        lemma = ArrayNamespace.lemma

        @staticmethod
        def sqrt(a: Any) -> Any:
            return sympy.sqrt(sympy.nsimplify(a, rational=True))

        @staticmethod
        def power(a: Any, b: Any) -> Any:
            return a ** sympy.nsimplify(b, rational=True)

        @staticmethod
        def cbrt(a: Any) -> Any:
            return a ** sympy.Rational(1, 3)

        @staticmethod
        def cos_third(a: Any) -> Any:
            return sympy.cos(sympy.acos(a) / 3)

        @staticmethod
        def log1p(a: Any) -> Any:
            return sympy.log(1 + a)

        @staticmethod
        def called(function: Any, z: Any) -> Any:
            return sympy.Function(rf"\mathrm{{{getattr(function, '__name__', 'r').strip('<>')}}}")(z)

        @staticmethod
        def tabulated(table: Any, u: Any, t: Any) -> Any:
            return sympy.Function(rf"\mathrm{{prox}}_{{t\,{table.__self__.function.__name__.strip('<>')}}}")(u, t)

        @staticmethod
        def root(equation: Equation, start: Any, low: Any, high: Any, steps: int) -> Any:  # noqa: ARG004
            return Root(equation(zeta)[0], low, high)

        @staticmethod
        def where(condition: Any, a: Any, b: Any) -> Any:
            # A guard inside a branch that repeats the condition of the branch is decided there.
            condition = _exact(condition)
            a, b = (_decided(_exact(branch), condition, i) for i, branch in enumerate((a, b)))
            return sympy.Piecewise((a, condition), (b, True))

    return SympyNamespace
