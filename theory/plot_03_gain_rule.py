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
"""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import z3

from proxsae.regularizers import L0, L1, MCP, Box, Cardinality, Huber, NonNegative, SquaredL2
from proxsae.verification import prove
from proxsae.verification.exchange import exchange_lemma

rng = np.random.default_rng(0)

# %%
# The exchange lemma, by z3
# -------------------------
# Each system states that a swap, or an addition, hurts. None has a solution in the real numbers.

for refutation in exchange_lemma():
    solver = z3.Solver()
    solver.add(refutation)
    print(refutation, "->", solver.check())
    assert solver.check() == z3.unsat

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
# Eight coordinates, k = 3, a weight of its own for each: all 93 supports, with the scalar prox on each.

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
print("gains", R.separable.gains(u), "-> code", R.prox(u))
assert R.prox(u).tolist() == [1.4, 0.0]

# %%
# The derivative of the gain is the activation
# --------------------------------------------
# A central difference of the gain, away from the jumps.

u = np.linspace(-3, 3, 1201)
shown = {
    "none: AbsTopK": Cardinality(1).separable,
    "NonNegative: TopK": NonNegative(),
    "L1: soft TopK": L1(),
    "L0": L0(),
    "MCP(2)": MCP(2.0),
    "Box(-0.5, 1)": Box(-0.5, 1.0),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for (name, r), colour in zip(shown.items(), plt.get_cmap("tab10").colors, strict=False):
    gain, activation = r.gains(u), r.prox(u)
    assert (gain >= 0).all()
    slope = (r.gains(u + 1e-6) - r.gains(u - 1e-6)) / 2e-6
    is_smooth = np.abs(r.prox(u + 2e-6) - r.prox(u - 2e-6)) < 1e-3
    assert is_smooth.mean() > 0.99
    np.testing.assert_allclose(slope[is_smooth], activation[is_smooth], atol=1e-5)
    left.plot(u, gain, color=colour, label=name)
    right.plot(u, np.where(is_smooth, activation, np.nan), color=colour)
left.set(xlabel="u", title="the gain g(u) orders the coordinates", ylim=(-0.1, 3))
right.set(xlabel="u", title="its derivative is the activation prox(u)")
left.legend(fontsize=8)
plt.show()
