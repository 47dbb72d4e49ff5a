"""Proofs that the shipped formula is a prox, for all real numbers at once: z3 reads the formula."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.blocks import Blocks
from proxsae.regularizers.cardinality import Cardinality
from proxsae.regularizers.entmax import Entmax
from proxsae.regularizers.from_cvxpy import FromCvxpy
from proxsae.regularizers.nonseparable import NonSeparableSum
from proxsae.regularizers.separable import Separable
from proxsae.regularizers.tree import TreeGroups
from proxsae.verification.pair import pair_of_regularizer
from proxsae.verification.report import Proof

if TYPE_CHECKING:
    from proxsae.verification.proofs.theorem import Theorem


def prove(R: Regularizer, *, timeout: float = 60.0) -> Proof:
    r"""Prove that the shipped prox of R minimises, for all real u, z, all t > 0 and all admissible parameters at once.

    With p the formula that runs and :math:`F(v) = \frac12 (v - u)^2 + t\,r(v)`, read as exact real arithmetic:

    1. p is defined (no division by zero, no root of a negative number) and r is finite there;
    2. F(p) <= F(z) for every z with r(z) finite;
    3. F(p) < F(0) unless p = 0: at a threshold the smaller support wins;
    4. r(0) <= r(z) for every z, where R says that it is least at zero;
    5. r(z) + r*(v) >= z v for all z and v, where the class writes a conjugate that z3 reads. Elsewhere the theorem says
       that the conjugate is not part of the proof.

    Every parameter is a variable, so that weights for each coordinate are covered too. For :class:`Cardinality` with a
    partner, the partner is proved, then the gain rule; that the code keeps the k largest gains is tested for every
    order of a few gains. For regularizers of groups and whole codes the array code is read: for groups of every size
    where only their norms matter, for the given groups of a tree ("proved for this tree"), and elsewhere for short
    codes, as the verdict says: "proved for n = 2". Where a formula is transcendental, point 2 is certified by ball
    arithmetic at a grid of points (u, t), for all z and the given parameters.

    Parameters
    ----------
    R : Regularizer
        Unless the theorem says otherwise only the form of R matters, not the values of its parameters.
    timeout : float, default 60
        CPU seconds of this process, all its threads, after which the verdict is "unknown".

    Returns
    -------
    Proof

    Raises
    ------
    ImportError
        Without z3 or python-flint: ``pip install "proxsae[prove]"``.
    TypeError
        If R is not a regularizer.
    """
    if not isinstance(R, Regularizer):
        raise TypeError(f"prove takes a regularizer, got {type(R).__name__}")
    if not can_prove():
        raise ImportError('proofs need z3 and python-flint: pip install "proxsae[prove]"')
    from proxsae.verification.proofs.arrays_z3 import UnreadableError
    from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError

    start = time.process_time()
    try:
        return replace(_prove(R, timeout), seconds=time.process_time() - start)
    except NotAlgebraicError as reason:
        why = f"{reason} is not algebraic"
    except UnreadableError as error:
        why = f"its code cannot be read: {error}"
    except (TypeError, AttributeError) as error:  # an operation that the prover's numbers do not have, as 2.0**z
        pair = pair_of_regularizer(R)
        U = np.random.default_rng(0).normal(scale=3.0, size=(20, pair.n))
        why = f"its formula cannot be read: {error}"
        try:  # a mistake in a formula raises here, too
            Z = pair.prox(U, 1.0)
        except (TypeError, AttributeError):
            raise
        except Exception as other:  # R may refuse this step
            why += f", and its prox refuses t = 1: {other}"
        else:
            pair.value(Z)
    return Proof(repr(R), f"no theorem: {why}", "unknown", seconds=time.process_time() - start)


def can_prove() -> bool:
    """Whether the packages that prove are installed."""
    return all(importlib.util.find_spec(package) for package in ("z3", "flint"))


def _prove(R: Regularizer, timeout: float) -> Proof:
    from proxsae.verification.proofs.certified import scalar_certificate
    from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError
    from proxsae.verification.proofs.other_claims import NO_CONJUGATE, said_beside
    from proxsae.verification.proofs.theorem import proof_of

    if isinstance(R, Blocks):
        return _prove_blocks(R, timeout)
    start = time.process_time()
    try:
        theorem = _theorem_of(R)
        said = said_beside(R, R.partner if isinstance(R, Cardinality) else R)
        proof = proof_of(R, replace(theorem, statement=theorem.statement + said), timeout)
    except NotAlgebraicError:
        if not isinstance(R, Separable):
            raise
    else:
        # Of powers, which may be too high for z3, no verdict is known beforehand.
        no_time_left = time.process_time() - start >= timeout
        if proof.verdict != "unknown" or R.is_algebraic or not isinstance(R, Separable) or no_time_left:
            return proof
    certificate = scalar_certificate(R)
    said = f"; {NO_CONJUGATE}" if R.has_conjugate else ""
    certificate = replace(certificate, statement=certificate.statement + said)
    return proof_of(R, certificate, timeout - (time.process_time() - start))


def _theorem_of(R: Regularizer) -> Theorem:
    from proxsae.verification.proofs.certified import entmax_certificate
    from proxsae.verification.proofs.composition import sparse_groups_theorem, tree_theorem
    from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError
    from proxsae.verification.proofs.gain_rule import gain_rule
    from proxsae.verification.proofs.groups import groups_theorem
    from proxsae.verification.proofs.separable import scalar_theorem
    from proxsae.verification.proofs.symbols import takes_norms_only
    from proxsae.verification.proofs.whole_vectors import read_theorem

    match R:
        case FromCvxpy():
            raise NotAlgebraicError("a solver")
        case NonSeparableSum() if takes_norms_only(R.core) or isinstance(R.core, TreeGroups):
            return sparse_groups_theorem(R)
        case Separable():
            return scalar_theorem(R)
        case Cardinality():
            return gain_rule(R)
        case Entmax():
            return entmax_certificate(R)
        case TreeGroups():
            return tree_theorem(R)
    return groups_theorem(R) if takes_norms_only(R) else read_theorem(R)


def _prove_blocks(R: Blocks, timeout: float) -> Proof:
    """Prove each block: the objective is a sum over blocks, and the verdict is that of the weakest proof."""
    proofs = [prove(block, timeout=timeout / len(R.blocks)) for block, _ in R.blocks]
    theorem = "; ".join(f"block {proof.regularizer}: {proof.theorem}" for proof in proofs)
    order = ("counterexample", "unknown", "certified", "proved for", "proved")
    weakest = min(proofs, key=lambda proof: next(i for i, word in enumerate(order) if proof.verdict.startswith(word)))
    return Proof(repr(R), theorem, weakest.verdict, weakest.counterexample)
