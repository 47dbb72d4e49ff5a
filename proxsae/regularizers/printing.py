"""The LaTeX reader of a formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.calculus import WithCount
from proxsae.regularizers.namespaces import Equation
from proxsae.regularizers.selection import Cardinality
from proxsae.regularizers.separable import Separable


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
    assert isinstance(regularizer, Separable)
    if of == "prox":
        return rf"\mathrm{{prox}}_{{tR}}(u)_i = {_prox(regularizer)}"
    return rf"R(z) = \sum_i {_formula(regularizer, 'value')}"


def _latex_of_cardinality(regularizer: Cardinality, of: str) -> str:
    partner = _prox(regularizer.separable) if of == "prox" else _formula(regularizer.separable, of)
    bound = {"sample": r"\|z\|_0 \le %d", "batch": r"\|Z\|_0 \le %d\,n"}[regularizer.scope] % regularizer.k
    if of == "value":
        return rf"R(z) = \iota_{{\{{{bound}\}}}}(z) + \sum_i {partner}"
    where = rf"i \text{{ among the {regularizer.k} largest gains of the {regularizer.scope}}}"
    return rf"\mathrm{{prox}}_{{tR}}(u)_i = \begin{{cases}} {partner} & {where} \\ 0 & \text{{otherwise}} \end{{cases}}"


def _prox(r: Separable) -> str:
    if not isinstance(r, WithCount):
        return _formula(r, "prox")
    # The gain written out would repeat the prox five times: name it, as the rule does.
    count = rf"t\,{_formula(r.outer, 'value')}"
    worth = rf"{_prox(r.inner)} & \text{{where its gain exceeds }} {count}"
    return rf"\begin{{cases}} {worth} \\ 0 & \text{{otherwise}} \end{{cases}}"


def _formula(r: Separable, of: str) -> str:
    import sympy

    class SympyNamespace:
        inf = sympy.oo
        abs, sign, maximum, minimum = sympy.Abs, sympy.sign, sympy.Max, sympy.Min

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

        tanh = sympy.tanh

        @staticmethod
        def root(equation: Equation, start: Any, low: Any, high: Any, steps: int) -> Any:  # noqa: ARG004
            zeta = sympy.Symbol(r"\zeta", positive=True)
            left = sympy.latex(sympy.nsimplify(equation(zeta)[0], rational=True))
            return sympy.Symbol(rf"\mathrm{{root}}_{{\zeta \le {sympy.latex(high)}}}\left[{left} = 0\right]", real=True)

        @staticmethod
        def where(condition: Any, a: Any, b: Any) -> Any:
            return sympy.Piecewise((a, condition), (b, True))

    def number(name: str, value: Any) -> Any:
        short = {"weight": "w"}.get(name.rsplit(".", 1)[-1], name.rsplit(".", 1)[-1])
        return sympy.nsimplify(float(value)) if np.ndim(value) == 0 else sympy.Symbol(f"{short}_i", real=True)

    u, z = sympy.symbols("u_i z_i", real=True)
    symbolic = r.map_parameters(number)
    if of == "prox":
        expression = symbolic.weighted_prox(SympyNamespace, u, sympy.Symbol("t", positive=True))
    else:
        expression = symbolic.weighted_value(SympyNamespace, z)
    return str(sympy.latex(sympy.nsimplify(expression, rational=True)))
