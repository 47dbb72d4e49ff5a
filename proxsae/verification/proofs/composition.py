"""A partner whose prox comes first: sparse groups, trees of groups, and completing the square.

Let f be convex and positively homogeneous, v = prox_{tf}(u), and let p = prox_{t psi}(v) be a multiple c v with c >= 0.
Then <u - v, z> <= t f(z) for all z, with equality on the ray of v, so that p is the prox of f + psi at u (Yu, 2013, On
decomposing the proximal map). z3 proves each hypothesis from the shipped formulas, and the conclusion from them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import z3

from proxsae.regularizers.basic import L1
from proxsae.regularizers.groups import GroupL2
from proxsae.regularizers.nonseparable import NonSeparableSum
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.tree import TreeGroups
from proxsae.verification.oracles.codes import search_codes
from proxsae.verification.pair import pair_of_regularizer
from proxsae.verification.proofs.decide import decide, is_possible
from proxsae.verification.proofs.formulas_z3 import Reader, both, either, negation
from proxsae.verification.proofs.groups import prove_norms
from proxsae.verification.proofs.levels import goes_from_the_leaves
from proxsae.verification.proofs.separable import OPTIMAL, read
from proxsae.verification.proofs.theorem import NotProvedError, Theorem, prove_lemmas
from proxsae.verification.proofs.whole_vectors import prove_equal, prove_radial, prove_read

OF_THE_TREE = "proved for this tree"


def sparse_groups_theorem(R: NonSeparableSum) -> Theorem:
    """Return the theorem about a core of norms, or a tree, and a convex partner of degree one, a ridge and a tilt."""
    core = R.core
    if isinstance(core, TreeGroups):
        return Theorem(f"{_of_a_tree(core)}, the partner going first", partial(_prove_sum, R), OF_THE_TREE)
    subject = "codes and groups of every size, t > 0 and all admissible weights, the partner going first"
    return Theorem(f"{OPTIMAL} for {subject}", partial(_prove_sum, R))


def tree_theorem(R: TreeGroups) -> Theorem:
    """Return the theorem that the groups of this tree, shrunk one after the other from the leaves on, give the prox."""
    return Theorem(f"{_of_a_tree(R)}, inner groups going first", partial(prove_tree, R), OF_THE_TREE)


def _of_a_tree(R: TreeGroups) -> str:
    n = _width(R)
    subject = f"these groups and costs in codes of {n} entries, or {n + 1}, all real u and z, t > 0 and all admissible"
    return f"{OPTIMAL} for {subject} weights"


def _width(R: TreeGroups) -> int:
    return 1 + max((group[-1] for group in R.groups), default=0)


def _prove_sum(R: NonSeparableSum, deadline: float) -> None:
    core = R.core
    if isinstance(core, TreeGroups):
        prove_tree(core, deadline)
        core = core.replace(groups=((0, 1), (0,)), group_weights=(1.0, 1.0))  # the sum does not look into a tree
    else:
        prove_norms(core, deadline)
    prove_going_first(R.base, deadline)
    _prove_composed(replace(R, core=core), deadline)
    prove_lemmas(composition_lemma() + square_lemma(), deadline)


def prove_tree(R: TreeGroups, deadline: float) -> None:
    """Prove a tree by induction: the groups inside of a group are convex and positively homogeneous, and come first.

    The reading of the code shows that it takes the proxes of the given groups, each after those inside of it.
    """
    prove_read(GroupL2(1), deadline)
    prove_radial(GroupL2(1), deadline)
    prove_going_first(L1(), deadline)  # s ||z|| = ||s z||, and so r(s ||z||) = s r(||z||)
    prove_lemmas(composition_lemma(), deadline)
    if not all(goes_from_the_leaves(R, n, deadline) for n in (_width(R), _width(R) + 1)):
        found = search_codes(pair_of_regularizer(R, effort="quick"))
        raise NotProvedError(found.counterexample and {"fails": found.reason, **found.counterexample})


def _prove_composed(R: NonSeparableSum, deadline: float) -> None:
    """Prove that the code is the composition, for any r in a core of norms; else look for numbers with r itself."""
    try:
        prove_equal(R, _partner_first, deadline, any_scalar=True)
    except NotProvedError:
        prove_equal(R, _partner_first, deadline, any_scalar=False)


def _partner_first(R: Any, xp: Any, u: Any, t: Any) -> Any:
    """The square is completed, then the partner goes first."""  # noqa: D401
    shrink = 1.0 + t * R.ridge.weight
    v = R.base.prox_on(xp, (u - t * R.tilt.weight * R.tilt.slope) / shrink, t / shrink)
    return R.core.prox_on(xp, v, t / shrink)


def prove_going_first(r: Separable, deadline: float) -> None:
    """Prove the conditions on a partner: the slopes of a convex function, and r(s z) = s r(z)."""
    reader = Reader()
    objective = read(r, reader)
    s = reader.real("s")
    p, value, own = objective.claimed, objective.value, objective.value_of_claimed
    slope = (objective.u - p) * (objective.z - p) - objective.t * (value - own)
    scaled = objective.r.weighted_value(reader, s * objective.z)
    proportional = either(
        both(value.is_finite, both(scaled.is_finite, scaled.term == s.term * value.term)),
        both(value.infinite, scaled.infinite),
    )
    at_zero = objective.r.weighted_value(reader, reader.number(0))
    claims = {
        "the prox is in the domain": both(p.is_finite, own.is_finite),
        "f(0) = 0": both(at_zero.is_finite, at_zero.term == 0),
        "<u - v, z - v> <= t (f(z) - f(v))": either(value.infinite, slope.term <= 0),
        "f(s z) = s f(z) for s > 0": either(negation(s.term > 0), proportional),
    }
    if not is_possible(objective.assumptions, reader.definitions, deadline):
        raise NotProvedError
    for words, claim in claims.items():
        result, model = decide([negation(claim), *objective.assumptions], reader.definitions, deadline)
        if result == z3.sat:
            raise NotProvedError({"fails": words, **{str(d): str(model[d]) for d in model.decls()}})
        if result == z3.unknown:
            raise NotProvedError


def composition_lemma() -> list[list[Any]]:
    """Return the claim to refute: the hypotheses hold, and yet some z is better than p = c v.

    Only the values of f at z and v occur, since f(s v) = s f(v), and only the inner products of u - v with z and v.
    `rest` is 1/2 ||z||^2 - <v, z> + t psi(z) less the same at p.
    """
    t, f_z, f_v, along_z, along_v, c, rest = z3.Reals("t f_z f_v along_z along_v c rest")
    slopes = [
        along_z - along_v <= t * (f_z - f_v),  # at z
        along_v <= t * f_v,  # at 2 v
        -along_v <= -t * f_v,  # at 0
    ]
    gain = rest + (t * f_z - along_z) - (t * c * f_v - c * along_v)
    return [[t > 0, c >= 0, rest >= 0, *slopes, gain < 0]]


def square_lemma() -> list[list[Any]]:
    """Refute: R + a/2 z^2 + b z at u and t is no multiple of R at (u - t b)/(1 + t a) and t/(1 + t a).

    One coordinate of z against another value y of it; the differences of the objectives are proportional.
    """
    u, t, a, b, z, y, R_z, R_y, v = z3.Reals("u t a b z y R_z R_y v")

    def whole(x: Any, R_x: Any) -> Any:
        return (x - u) * (x - u) / 2 + t * (R_x + a * x * x / 2 + b * x)

    def shrunk(x: Any, R_x: Any) -> Any:
        return (1 + t * a) * (x - v) * (x - v) / 2 + t * R_x

    center = v * (1 + t * a) == u - t * b
    return [[t > 0, a >= 0, center, whole(z, R_z) - whole(y, R_y) != shrunk(z, R_z) - shrunk(y, R_y)]]
