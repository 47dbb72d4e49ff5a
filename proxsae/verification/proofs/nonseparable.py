"""Which proof is that of which regularizer of groups or whole codes."""

from __future__ import annotations

import time
from typing import Any

from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.blocks import Blocks
from proxsae.regularizers.from_cvxpy import FromCvxpy
from proxsae.regularizers.k_support import KSupport, KSupportNorm, L1MinusL2
from proxsae.regularizers.nonseparable_sums import JointSum
from proxsae.regularizers.tree import TreeGroups
from proxsae.verification.proofs.arrays_z3 import UnreadableError
from proxsae.verification.proofs.composition import prove_sparse_groups, prove_tree
from proxsae.verification.proofs.fenchel import prove_by_conjugate, prove_k_support_norm
from proxsae.verification.proofs.formulas_z3 import NotAlgebraicError
from proxsae.verification.proofs.norm_difference import prove_norm_difference
from proxsae.verification.proofs.prove import OPTIMAL, Proof, prove
from proxsae.verification.proofs.whole_vectors import is_radial, prove_read


def prove_joint(R: Regularizer, timeout: float = 60.0) -> Proof:
    """Prove the prox of a regularizer that looks at groups or at whole codes.

    Parameters
    ----------
    R : Regularizer
        Its form matters, not the values of its parameters; k, s and the groups of a tree are part of the form.
    timeout : float, default 60
        Seconds after which the verdict is "unknown".
    """
    start = time.monotonic()
    try:
        proof: Proof = _proof_for(R)(R, timeout)
        return proof
    except NotAlgebraicError as reason:
        verdict, why = "not algebraic", f"{reason} is not algebraic"
    except TimeoutError:
        verdict, why = "unknown", "out of time"
    except UnreadableError as error:
        verdict, why = "unknown", f"its code cannot be read: {error}"
    return Proof(repr(R), f"{OPTIMAL} ({why})", verdict, time.monotonic() - start)  # type: ignore[arg-type]


def _proof_for(R: Regularizer) -> Any:
    if isinstance(R, FromCvxpy):
        raise NotAlgebraicError("a solver")
    if isinstance(R, JointSum) and (is_radial(R.core) or isinstance(R.core, TreeGroups)):
        return prove_sparse_groups
    proofs = {
        Blocks: _prove_blocks,
        TreeGroups: prove_tree,
        L1MinusL2: prove_norm_difference,
        KSupport: prove_by_conjugate,
        KSupportNorm: prove_k_support_norm,
    }
    return next((proof for kind, proof in proofs.items() if isinstance(R, kind)), prove_read)


def _prove_blocks(R: Blocks, timeout: float) -> Proof:
    """Prove each block: the objective is a sum over them."""
    start = time.monotonic()
    proofs = [prove(block, timeout=timeout / len(R.blocks)) for block, _ in R.blocks]
    theorem = "; ".join(f"block {proof.regularizer}: {proof.theorem}" for proof in proofs)
    worst = min(proofs, key=lambda proof: proof.verdict in ("proved", "bounded"))
    epsilon = next((proof.epsilon for proof in proofs if proof.epsilon is not None), None)
    bounded = worst.verdict == "proved" and epsilon is not None
    verdict = "bounded" if bounded else worst.verdict
    return Proof(repr(R), theorem, verdict, time.monotonic() - start, worst.counterexample, epsilon)
