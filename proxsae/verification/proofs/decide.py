"""Decide polynomial facts with piecewise terms: split every `if` first, so that each case is a plain system.

Without the split z3 carries the pieces through its non-linear arithmetic; with it MCP takes 1 s in place of 14 s.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import z3

from proxsae.verification.proofs.formulas_z3 import Definition

Term = Any
PRUNING_SECONDS = 0.06  # a case not refuted by then is split further; this moves the time taken, not the verdict
# Steps of z3's tactic qfnra-nlsat before its search. They have no time limit, since z3 5.4 crashes where one ends
# "factor"; polynomials of high degree, which could take it minutes, are left as they are.
FACTORED = 10
PREPARATION = z3.Then(
    *("simplify", "purify-arith", "propagate-values", "solve-eqs", "elim-term-ite", "purify-arith"),
    z3.Cond(z3.Probe("arith-max-deg") > FACTORED, "skip", "factor"),
)
DECOMPOSITION = z3.Then("solve-eqs", "purify-arith", "simplify", "tseitin-cnf", "simplify", "nlsat")


def decide(facts: list[Term], definitions: list[Definition], deadline: float) -> tuple[Any, Any]:
    """Return (sat, model), (unsat, None) or (unknown, None) for the conjunction of the facts.

    Parameters
    ----------
    facts : list
        z3 Booleans, or Python ones. The first fact is the one in question: facts that do not bear on it are left out at
        first.
    definitions : list of Definition
        The definitions of the fresh symbols in the facts. A case uses only those that it still mentions: the others can
        be met whatever the facts are.
    deadline : float
        The ``time.process_time()`` after which the answer is unknown.
    """
    if any(fact is False for fact in facts):
        return z3.unsat, None
    simple = [z3.simplify(fact) for fact in facts if fact is not True]
    if any(z3.is_false(fact) for fact in simple):
        return z3.unsat, None
    simple = [fact for fact in simple if not z3.is_true(fact)]
    if time.process_time() >= deadline:
        return z3.unknown, None
    needed = _mentioned(simple, definitions)
    if _is_refuted_cheaply(simple + [fact for d in needed for fact in _in_full(d)]):
        return z3.unsat, None
    condition = _condition(simple + [term for d in needed for term in (d.guard, d.equation, *d.facts)])
    if condition is None:
        return _decide_plain(_relevant(simple, needed), deadline)
    verdict = z3.unsat
    for truth, fact in ((True, condition), (False, z3.Not(condition))):
        result, model = decide([*_replace(simple, condition, truth), fact], _with(needed, condition, truth), deadline)
        if result == z3.sat:
            return result, model
        if result == z3.unknown:
            verdict = z3.unknown
    return verdict, None


def is_refuted(facts: list[Term], definitions: list[Definition]) -> bool:
    """Whether the facts, none of which contains an `if`, are seen at once to contradict each other."""
    needed = _mentioned(facts, definitions)
    return _is_refuted_cheaply(facts + [fact for d in needed for fact in _in_full(d)])


def is_possible(facts: list[Term], definitions: list[Definition], deadline: float) -> bool:
    """Whether the facts can be met: from a contradiction anything could be proved."""
    return bool(decide(facts, definitions, deadline)[0] == z3.sat)


def conjuncts(claim: Term) -> list[Term]:
    """Return claims that together are the claim."""
    if isinstance(claim, bool):
        return [] if claim else [z3.BoolVal(False)]
    claim = z3.simplify(claim)
    if z3.is_and(claim):
        return [part for child in claim.children() for part in conjuncts(child)]
    if z3.is_not(claim) and z3.is_or(claim.arg(0)):
        return [part for child in claim.arg(0).children() for part in conjuncts(z3.Not(child))]
    return [claim]


def _replace(terms: list[Term], condition: Term, truth: bool) -> list[Term]:
    return [z3.simplify(z3.substitute(term, (condition, z3.BoolVal(truth)))) for term in terms]


def _with(definitions: list[Definition], condition: Term, truth: bool) -> list[Definition]:
    """Return the definitions in the case where the condition is known."""
    return [
        Definition(d.symbol, _replace(d.facts, condition, truth), *_replace([d.guard, d.equation], condition, truth))
        for d in definitions
    ]


def _in_full(definition: Definition) -> list[Term]:
    return [*definition.facts, z3.Implies(definition.guard, definition.equation)]


def _with_definitions(facts: list[Term], definitions: list[Definition]) -> list[Term]:
    known = facts + [fact for d in definitions for fact in d.facts]
    return [fact for fact in known + [_in_short(d, known) for d in definitions] if not z3.is_true(fact)]


def _in_short(definition: Definition, known: list[Term]) -> Term:
    """Drop the guard where what is known implies it: a disjunction costs the decision procedure dearly."""
    names = _symbols(definition.guard)
    equation = _without_powers(definition.equation)
    if _is_refuted_cheaply([z3.Not(definition.guard), *(fact for fact in known if _symbols(fact) <= names)]):
        return equation
    return z3.Implies(definition.guard, equation)


def _without_powers(equation: Term) -> Term:
    """Return the equation of a root x >= 0, written x = y where it says x^n = y^n and y >= 0."""
    if not z3.is_eq(equation):
        return equation
    (x, n), (y, m) = (_as_power(side) for side in equation.children())
    return z3.If(y >= 0, x == y, equation) if n == m > 1 else equation


def _as_power(term: Term) -> tuple[Term, int]:
    factors = term.children() if z3.is_mul(term) else [term]
    return (factors[0], len(factors)) if all(factor.eq(factors[0]) for factor in factors) else (term, 1)


def _relevant(facts: list[Term], definitions: list[Definition]) -> list[list[Term]]:
    """Return growing sets of facts around the first one, all of them last: a small set may do for a proof."""
    everything = _with_definitions(facts, definitions)
    sets: list[list[Term]] = []
    names = _symbols(facts[0]) if facts else set()
    while True:
        near = [d for d in definitions if d.symbol.decl().name() in names]
        wider = names.union(*(_symbols(term) for d in near for term in (d.guard, d.equation)))
        if wider == names:
            chosen = [fact for fact in everything if _symbols(fact) <= names]
            if len(chosen) == len(everything):
                return [*sets, everything]
            sets.append(chosen)
            wider = names.union(*(_symbols(fact) for d in near for fact in d.facts))
            if wider == names:  # the facts that add least to what is spoken of come next
                strangers = [_symbols(fact) - names for fact in facts if _symbols(fact) & names]
                wider = names | min(filter(None, strangers), key=len, default=set())
            if wider == names:
                return [*sets, everything]
        names = wider


def _mentioned(facts: list[Term], definitions: list[Definition]) -> list[Definition]:
    """Return the definitions of the symbols in the facts, and of those in these definitions."""
    if not definitions:
        return []
    names = set().union(*(_symbols(fact) for fact in facts))
    needed: list[Definition] = []
    for definition in reversed(definitions):  # a definition mentions earlier symbols only
        if definition.symbol.decl().name() in names:
            needed.append(definition)
            names |= _symbols(definition.guard).union(*map(_symbols, [definition.equation, *definition.facts]))
    return needed[::-1]


def _symbols(term: Term) -> set[str]:
    constants = (node.decl() for node in _nodes(term) if z3.is_const(node))
    return {constant.name() for constant in constants if constant.kind() == z3.Z3_OP_UNINTERPRETED}


def _condition(terms: list[Term]) -> Term | None:
    """Return the condition of an `if` near the root that contains no `if` itself."""
    for term in terms:
        for node in _nodes(term):
            if z3.is_app_of(node, z3.Z3_OP_ITE):
                inner = _condition([node.arg(0)])
                return node.arg(0) if inner is None else inner
    return None


def _nodes(term: Term) -> list[Term]:
    """Return the subterms, each once, those near the root first."""
    nodes, seen, queue = [], {term.get_id()}, deque([term])
    while queue:
        node = queue.popleft()
        nodes.append(node)
        for child in node.children():
            if child.get_id() not in seen:
                seen.add(child.get_id())
                queue.append(child)
    return nodes


def _is_refuted_cheaply(facts: list[Term]) -> bool:
    solver = DECOMPOSITION.solver()
    solver.set("timeout", int(1000 * PRUNING_SECONDS))
    solver.add(*_prepared(facts))
    return bool(solver.check() == z3.unsat)


def _decide_plain(sets: list[list[Term]], deadline: float) -> tuple[Any, Any]:
    """Try cylindrical decomposition and the default strategy in turn on sets of facts, each time for longer."""
    for patience in (0.5, 2.0, 8.0, 32.0, 128.0):
        for facts in sets:
            goal = _prepared(facts)
            for solver in (DECOMPOSITION.solver(), z3.Solver()):
                remaining = min(patience, deadline - time.process_time())
                if remaining <= 0:
                    return z3.unknown, None
                solver.set("timeout", max(1, int(1000 * remaining)))
                solver.add(*goal)
                result = solver.check()
                if result == z3.unsat:
                    return result, None
                if result == z3.sat:
                    if facts is sets[-1]:
                        return result, goal.convert_model(solver.model())
                    break
    return z3.unknown, None


def _prepared(facts: list[Term]) -> Any:
    """Return an equivalent goal."""
    goal = z3.Goal()
    goal.add(facts)
    return PREPARATION(goal)[0]
