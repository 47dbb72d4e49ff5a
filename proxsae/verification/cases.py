"""Decide polynomial facts with piecewise terms: split every `if` first, so that each case is a plain system.

z3 left alone carries the pieces through its non-linear arithmetic; split beforehand, MCP takes 1 s in place of 14 s.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import z3

from proxsae.verification.symbolic import Definition

Term = Any
PRUNING_SECONDS = 0.06  # a case not refuted by then is split further; this moves the time taken, not the verdict


def decide(facts: list[Term], definitions: list[Definition], deadline: float) -> tuple[Any, Any]:
    """Return (sat, model), (unsat, None) or (unknown, None) for the conjunction of the facts.

    Parameters
    ----------
    facts : list
        z3 Booleans, or Python ones.
    definitions : list of Definition
        What the fresh symbols in the facts stand for. Only those that a case still mentions take part in it: the
        others can be met whatever the facts are.
    deadline : float
        The ``time.monotonic()`` after which the answer is unknown.
    """
    if any(fact is False for fact in facts):
        return z3.unsat, None
    simple = [z3.simplify(fact) for fact in facts if fact is not True]
    if any(z3.is_false(fact) for fact in simple):
        return z3.unsat, None
    simple = [fact for fact in simple if not z3.is_true(fact)]
    needed = _mentioned(simple, definitions)
    if _is_refuted_cheaply(simple + [fact for d in needed for fact in _in_full(d)]):
        return z3.unsat, None
    condition = _condition(simple + [term for d in needed for term in (d.guard, d.equation)])
    if condition is None:
        return _decide_plain(simple + [fact for d in needed for fact in _in_short(d, simple)], deadline)
    verdict = z3.unsat
    for truth, fact in ((True, condition), (False, z3.Not(condition))):
        result, model = decide([*_replace(simple, condition, truth), fact], _with(needed, condition, truth), deadline)
        if result == z3.sat:
            return result, model
        if result == z3.unknown:
            verdict = z3.unknown
    return verdict, None


def _replace(terms: list[Term], condition: Term, truth: bool) -> list[Term]:
    return [z3.simplify(z3.substitute(term, (condition, z3.BoolVal(truth)))) for term in terms]


def _with(definitions: list[Definition], condition: Term, truth: bool) -> list[Definition]:
    """Return the definitions in the case where the condition is known."""
    return [Definition(d.symbol, d.facts, *_replace([d.guard, d.equation], condition, truth)) for d in definitions]


def _in_full(definition: Definition) -> list[Term]:
    return [*definition.facts, z3.Implies(definition.guard, definition.equation)]


def _in_short(definition: Definition, facts: list[Term]) -> list[Term]:
    """Drop the guard where the facts imply it: a disjunction costs the decision procedure dearly."""
    if _is_refuted_cheaply([*facts, z3.Not(definition.guard)]):
        return [*definition.facts, definition.equation]
    return _in_full(definition)


def _mentioned(facts: list[Term], definitions: list[Definition]) -> list[Definition]:
    """Return the definitions of the symbols in the facts, and of those in these definitions."""
    names = set().union(*(_symbols(fact) for fact in facts))
    needed: list[Definition] = []
    for definition in reversed(definitions):  # a definition mentions earlier symbols only
        if str(definition.symbol) in names:
            needed.append(definition)
            names |= _symbols(definition.guard) | _symbols(definition.equation)
    return needed[::-1]


def _symbols(term: Term) -> set[str]:
    return {str(node) for node in _nodes(term) if z3.is_const(node) and node.decl().kind() == z3.Z3_OP_UNINTERPRETED}


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
    solver = _decomposition()
    solver.set("timeout", int(1000 * PRUNING_SECONDS))
    solver.add(facts)
    return bool(solver.check() == z3.unsat)


def _decide_plain(facts: list[Term], deadline: float) -> tuple[Any, Any]:
    """Try cylindrical decomposition and the default strategy in turn, each time for longer."""
    for patience in (0.5, 2.0, 8.0, 32.0, 128.0):
        for solver in (_decomposition(), z3.Solver()):
            remaining = min(patience, deadline - time.monotonic())
            if remaining <= 0:
                return z3.unknown, None
            solver.set("timeout", max(1, int(1000 * remaining)))
            solver.add(facts)
            result = solver.check()
            if result != z3.unknown:
                return result, solver.model() if result == z3.sat else None
    return z3.unknown, None


def _decomposition() -> Any:
    return z3.Then("simplify", "purify-arith", "solve-eqs", "tseitin-cnf", "qfnra-nlsat").solver()
