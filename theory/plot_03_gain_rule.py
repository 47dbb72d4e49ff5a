r"""
3. The gain rule
================

TopK, AbsTopK, BatchTopK, soft TopK and every other "keep k" activation are one theorem.

**Theorem.** *Let* :math:`R(z) = \sum_i r_i(z_i) + \iota\{\|z\|_0 \le k\}` *with* :math:`r_i(0) = 0`, *and let each
scalar problem below have a minimiser. The gain of coordinate i is what setting* :math:`z_i` *free saves over*
:math:`z_i = 0`,

.. math:: g_i = \tfrac12 u_i^2 - \min_z \left[\tfrac12 (z - u_i)^2 + t\, r_i(z)\right] \;\ge\; 0 .

*Then keeping k coordinates of largest gain, with the scalar prox of* :math:`r_i` *there and 0 elsewhere, is a*
:math:`\mathrm{prox}_{tR}(u)`.

**Proof.** Fix the set S of coordinates that may be non-zero, :math:`|S| \le k`. The problem separates and its least
value is :math:`\frac12\|u\|^2 - \sum_{i \in S} g_i`. *Exchange lemma:* if S keeps i and leaves out j with :math:`g_j
> g_i`, swapping them lowers this by :math:`g_j - g_i > 0`; adding a coordinate never raises it, as :math:`g_j \ge 0`
(z = 0 is a candidate). So no S beats the k largest gains. ∎

**Corollary.** *The gain is the convex conjugate* :math:`g_i = (\frac12 (\cdot)^2 + t r_i)^*(u_i)`: *convex in u,
never negative, and its derivative is the activation,* :math:`g_i'(u) = \mathrm{prox}_{t r_i}(u)` *wherever that is
continuous. So for equal, even* :math:`r_i` *the order of the gains is that of* :math:`|u_i|` *(AbsTopK), and for*
:math:`r_i` *that require* :math:`z \ge 0` *and are least at 0, that of* :math:`\max(u_i, 0)` *(TopK). Otherwise only
the gains know.*

**Proof.** :math:`\frac12 u^2 - \frac12 (z - u)^2 - t r(z) = uz - (\frac12 z^2 + t r(z))`: its largest value is the
conjugate at u, and a maximiser z is a subgradient of it. An even convex function does not fall as :math:`|u|` grows;
and if :math:`r \ge 0` requires :math:`z \ge 0`, the gain is 0 at every :math:`u \le 0` and, convex, does not fall
beyond. ∎

**References.** Beck and Eldar (2013), Sparsity constrained nonlinear optimization, SIAM J. Optim. 23; Lu and Zhang
(2013), Sparse approximation via penalty decomposition methods, SIAM J. Optim. 23.
"""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import z3

from proxsae.regularizers import L0, L1, MCP, Box, Cardinality, Huber, NonNegative, SquaredL2
from proxsae.verification import prove
from proxsae.verification.proofs.formulas_z3 import Reader
from proxsae.verification.proofs.gain_rule import (
    even_ranking_lemma,
    exchange_lemma,
    positive_ranking_lemma,
)
from proxsae.verification.proofs.theorem import prove_lemmas

rng = np.random.default_rng(0)

# %%
# The lemmas, by z3
# -----------------
# Each lemma is a list of systems that contradict it: a swap, or an addition, that hurts; a larger gain at a smaller
# abs(u), or max(u, 0); a code with two non-zeros among three that beats AbsTopK. z3 finds that none has a solution in
# the real numbers.


def whole_abs_topk(n, k):
    """List codes with k non-zeros that beat the k largest abs(u_i), lowest index first."""
    reader = Reader()
    u, z = [reader.real(f"u{i}") for i in range(n)], z3.Reals([f"z{i}" for i in range(n)])
    modulus = [reader.abs(x).term for x in u]
    ahead = lambda i, j: modulus[j] >= modulus[i] if j < i else modulus[j] > modulus[i]  # noqa: E731
    kept = [z3.Sum([z3.If(ahead(i, j), 1, 0) for j in range(n) if j != i]) < k for i in range(n)]
    ours = z3.Sum([z3.If(kept[i], 0, u[i].term * u[i].term) for i in range(n)])
    return [
        [z3.Sum([(u[i].term - (z[i] if i in support else 0)) ** 2 for i in range(n)]) < ours]
        for support in combinations(range(n), k)
    ]


for refutation in exchange_lemma():
    print("no solution:", refutation)
lemmas = {
    "exchange": exchange_lemma(),
    "order of abs(u)": even_ranking_lemma(),
    "order of max(u, 0)": positive_ranking_lemma(),
    "AbsTopK, n = 3, k = 2": whole_abs_topk(3, 2),
}
for name, refutations in lemmas.items():
    prove_lemmas(refutations, deadline=float("inf"))
    print(f"{name:22s} proved")

# %%
# The rule with its partner, by z3
# --------------------------------
# `prove` reads the shipped formulas: the partner's prox is optimal, its gain is what is saved, and the order that the
# code sorts by is the order of the gains. The proof is for all n, k, u, t > 0 and all weights at once.

for R in (
    Cardinality(32),
    NonNegative() + Cardinality(32),
    0.1 * L1() + Cardinality(32),
    0.1 * L1() + 0.5 * SquaredL2() + NonNegative() + Cardinality(32),
    0.1 * L0() + Box(-1.0, 2.0) + Cardinality(32),
    NonNegative() + Cardinality(32, "batch"),
):
    proof = prove(R)
    print(f"{proof.verdict} in {proof.seconds:4.1f} s: {R}, {proof.theorem}")
    assert proof.verdict == "proved"

# %%
# Against all supports
# --------------------
# Eight coordinates with different weights, k = 3: all 93 supports, with the scalar prox on each.

weights = rng.uniform(0.1, 2.0, size=8)
U = rng.normal(size=(200, 8)) * 2
partners = (weights * L1(), weights * L0(), weights * MCP(1.5) + NonNegative(), weights * Huber(0.5), Box(-0.3, 1.0))
for r in partners:
    for t in (0.3, 1.0, 3.0):
        R = r + Cardinality(3)
        free, best = r.prox(U, t), np.full(len(U), np.inf)
        for size in range(4):
            for support in combinations(range(8), size):
                Z = np.zeros_like(U)
                Z[:, support] = free[:, support]
                best = np.minimum(best, 0.5 * ((Z - U) ** 2).sum(-1) + t * r.value(Z))
        Z = R.prox(U, t)
        assert (np.count_nonzero(Z, axis=1) <= 3).all()
        np.testing.assert_allclose(0.5 * ((Z - U) ** 2).sum(-1) + t * R.value(Z), best, rtol=1e-12)

# %%
# The largest modulus is not always the largest gain
# --------------------------------------------------
# With unequal weights, the entry largest in modulus may be worth nothing.

R = np.array([0.1, 2.0]) * L1() + Cardinality(1)
u = np.array([1.5, 2.0])
print("gains", R.partner.gains(u), "-> code", R.prox(u))
assert R.prox(u).tolist() == [1.4, 0.0]

# %%
# The derivative of the gain is the activation
# --------------------------------------------
# A central difference of the gain, away from the jumps.

u = np.linspace(-3, 3, 1201)
shown = {
    "AbsTopK: no partner": (Cardinality(1).partner, "#999999", 5),
    "TopK: NonNegative": (NonNegative(), "#0072b2", 2),
    "soft TopK: L1": (L1(), "#009e73", 2),
    "L0": (L0(), "#d55e00", 2),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, (r, colour, width) in shown.items():
    gain, activation = r.gains(u), r.prox(u)
    assert (gain >= 0).all()
    slope = (r.gains(u + 1e-6) - r.gains(u - 1e-6)) / 2e-6
    is_smooth = np.abs(r.prox(u + 2e-6) - r.prox(u - 2e-6)) < 1e-3
    assert is_smooth.mean() > 0.99
    np.testing.assert_allclose(slope[is_smooth], activation[is_smooth], atol=1e-5)
    jumps = np.abs(np.diff(activation, append=activation[-1])) > 0.1
    left.plot(u, gain, color=colour, lw=width, label=name)
    right.plot(u, np.where(jumps, np.nan, activation), color=colour, lw=width)
left.set(xlabel="u", title="the gain g(u) orders the coordinates", ylim=(-0.1, 4.6))
right.set(xlabel="u", title="its derivative is the activation prox(u)")
left.legend(fontsize=8, loc="upper center")
plt.show()
