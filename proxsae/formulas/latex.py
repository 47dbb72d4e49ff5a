"""The LaTeX reader of a formula: a scalar regularizer on symbols, printed by sympy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from proxsae.formulas.arrays import ArrayNamespace

LONGEST = 1000  # characters; a longer formula cannot be read, and its definition is printed instead


def scalar_value(r: Any) -> str:
    """Return the value of one entry z_i."""
    return printed(_symbolic(r).weighted_value(_namespace(), _symbol("z")))


def scalar_prox(r: Any, u: str) -> str:
    """Return the prox of one entry with the name u, or its definition where it is long."""
    formula = printed(_symbolic(r).weighted_prox(_namespace(), _symbol(u.removesuffix("_i")), _step()))
    if len(formula) <= LONGEST:
        return formula
    objective = rf"\tfrac12 (z_i - {u})^2 + t \left({scalar_value(r)}\right)"
    return rf"\operatorname*{{arg\,min}}_{{z_i}} {objective}"


def step_times_weight(r: Any) -> str:
    """Return t w of a regularizer."""
    return printed(_step() * _symbolic(r).weight)


def printed(expression: Any) -> str:
    """Return a number or a sympy expression, its floats as fractions."""
    import sympy

    return str(sympy.latex(sympy.nsimplify(expression, rational=True)))


def _step() -> Any:
    import sympy

    return sympy.Symbol("t", positive=True)


def _name(method: Any) -> str:
    """Return the name of the user's function that a method of Numeric reads."""
    return str(getattr(method.__self__.function, "__name__", "r")).strip("<>")


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


def _symbolic(r: Any) -> Any:
    """Return a copy with exact numbers and symbols for parameters."""
    import sympy

    def number(name: str, value: Any) -> Any:
        last = name.rsplit(".", 1)[-1]
        return sympy.nsimplify(float(value)) if np.ndim(value) == 0 else _symbol("w" if last == "weight" else last)

    return r.map_parameters(number)


def _namespace() -> Any:
    """Return the functions a formula may call, as expressions."""
    import sympy

    zeta = sympy.Symbol(r"\zeta", positive=True)

    class Root(sympy.Function):  # type: ignore[misc]
        """The root of an equation in zeta, in an interval."""

        is_real = True

        def _latex(self, printer: Any) -> str:
            left, low, high = (printer.doprint(argument) for argument in self.args)
            return rf"\operatorname{{root}}_{{{low} \le \zeta \le {high}}}\left[{left} = 0\right]"

    def where(condition: Any, a: Any, b: Any) -> Any:
        # A guard inside a branch that repeats the condition of the branch is decided there.
        condition = _exact(condition)
        a, b = (_decided(_exact(branch), condition, i) for i, branch in enumerate((a, b)))
        return sympy.Piecewise((a, condition), (b, True))

    return SimpleNamespace(
        inf=sympy.oo,
        abs=sympy.Abs,
        sign=sympy.sign,
        maximum=sympy.Max,
        minimum=sympy.Min,
        where=where,
        sqrt=lambda a: sympy.sqrt(sympy.nsimplify(a, rational=True)),
        power=lambda a, b: a ** sympy.nsimplify(b, rational=True),
        cbrt=lambda a: a ** sympy.Rational(1, 3),
        cos_third=lambda a: sympy.cos(sympy.acos(a) / 3),
        log1p=lambda a: sympy.log(1 + a),
        tanh=sympy.tanh,
        lemma=ArrayNamespace.lemma,
        root=lambda equation, start, low, high, steps: Root(equation(zeta)[0], low, high),  # noqa: ARG005
        called=lambda function, z: sympy.Function(rf"\mathrm{{{_name(function)}}}")(z),
        tabulated=lambda table, u, t: sympy.Function(rf"\mathrm{{prox}}_{{t\,{_name(table)}}}")(u, t),
    )
