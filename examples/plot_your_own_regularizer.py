r"""
How do I use a regularizer that is not in the library?
======================================================

Suppose features may be negative, but should be so only for a good reason: a negative code costs c times as much as a
positive one,

.. math:: r(z) = \max(z, 0) + c \max(-z, 0), \qquad
          \mathrm{prox}_{tr}(u) = \max(u - t, 0) + \min(u + ct, 0) .

There are two ways. The short way is to write down the values, for which the library finds the prox numerically. The
exact way is a class with both formulas, which is proved, compiled and printed like those of the library.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from proxsae import ProxSAE, prove, solve, verify
from proxsae.regularizers import Cardinality, Numeric, Separable

# %%
# Only the values
# ---------------
# `Numeric` searches the whole line for the minimum and tabulates the result, with an error bound.


def skewed(z):
    """Return the penalty at c = 3."""
    return np.maximum(z, 0) + 3 * np.maximum(-z, 0)


short = 0.5 * Numeric(skewed)
print(short, short.prox(np.array([-3.0, -1.0, 0.2, 2.0])))
print(f"tolerance {short.tolerance:g}, and certainly no error above {short.error_bound():.1g}")

# %%
# Both formulas
# -------------
# The formulas use the functions of `xp` alone and do not branch on their arguments, so that NumPy, torch, Numba, the
# prover and the LaTeX printer all read this one text.


class SkewedL1(Separable):
    """r(z) = max(z, 0) + c max(-z, 0)."""

    c: Any

    is_convex = True
    is_symmetric = False
    is_least_at_zero = True
    degree = 1  # r(s z) = s r(z): the weight is in the units of z

    def conditions(self):
        """State c >= 0."""
        return [*super().conditions(), (self.c >= 0, "c must not be negative")]

    def value_of(self, xp, z):
        """Return the penalty."""
        return xp.maximum(z, 0.0) + self.c * xp.maximum(-z, 0.0)

    def prox_of(self, xp, u, t):
        """Return the soft threshold of either side."""
        return xp.maximum(u - t, 0.0) + xp.minimum(u + t * self.c, 0.0)


R = 0.5 * SkewedL1(3.0)
u = np.linspace(-4, 4, 801)
np.testing.assert_allclose(R.prox(u), short.prox(u), atol=1e-5)

# %%
# Is it right? `prove` settles it for all real u and z, all steps t > 0, all weights and all c >= 0; `verify` runs
# every other oracle too. Had the step been forgotten on one side, both would answer with numbers.

print(proof := prove(R))
assert proof.verdict == "proved"
print(verify(R))
assert verify(R).passed


class Forgetful(SkewedL1):
    """The same, with a mistake."""

    def prox_of(self, xp, u, t):
        """Forget the step on the negative side."""
        return xp.maximum(u - t, 0.0) + xp.minimum(u + self.c, 0.0)


print(refuted := prove(Forgetful(3.0)))
assert refuted.verdict == "counterexample"

# %%
# The class works with the rest of the library: with a cardinality by the gain rule, in a solver with a certificate,
# as the activation of an autoencoder.

rng = np.random.default_rng(0)
atoms = rng.normal(size=(64, 16))
atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
signs = rng.choice([1, 1, 1, -1], size=(4000, 64))
codes = signs * (rng.random((4000, 64)) < 0.05) * rng.uniform(1, 2, size=(4000, 64))
X = (codes @ atoms).astype(np.float32)

print((R + Cardinality(2)).prox(np.array([[-3.0, -1.6, 0.2, 2.0]])))
few = X[:100].astype(np.float64)
s = solve(few, atoms, 0.1 * SkewedL1(3.0), max_iter=5000)
print(f"{s.method}: {s.converged.mean():.0%} converged, {s.certificate_kind} at most {s.certificate.max():.1e}")
sae = ProxSAE(0.1 * SkewedL1(3.0), 64, n_steps=200, batch_size=256, learning_rate=5e-3, device="cpu", random_state=0)
Z = sae.fit(X).transform(X)
print(f"explained variance {sae.score(X):.3f}, negative among the active codes {(Z.data < 0).mean():.0%}")

# %%
# The price of a negative code
# ----------------------------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for c in (1.0, 3.0, 10.0):
    left.plot(u, (0.5 * SkewedL1(c)).prox(u), label=f"c = {c:g}")
costs, shares = np.geomspace(0.3, 30, 9), []
for c in costs:
    s = solve(few, atoms, 0.1 * SkewedL1(c), tol=1e-4, max_iter=5000)
    shares.append((s.codes < 0).sum() / (s.codes != 0).sum())
left.set(xlabel="u", ylabel="prox(u)", title="0.5 * SkewedL1(c)")
left.legend()
right.semilogx(costs, shares, "o-")
right.set(xlabel="cost c of a negative code", ylabel="negative share of active codes", ylim=(0, None))
plt.show()
