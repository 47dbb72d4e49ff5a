r"""
9. Constants: the root, the half, the bias
==========================================

**Theorem.** **(i)** *The root.* :math:`\mathrm{prox}_{t\lambda\|\cdot\|_0}` *keeps u where* :math:`|u| > \sqrt{2 t
\lambda}`; :math:`\mathrm{prox}_{t\lambda\|\cdot\|_1}` *subtracts* :math:`t\lambda`.

**(ii)** *The half. A weight* :math:`\lambda` *beside* :math:`\|y - zD\|^2` *has the minimisers of the weight*
:math:`\lambda/2` *beside* :math:`\frac12\|y - zD\|^2`; *and* :math:`\lambda` *beside a mean over n features,*
:math:`\frac{1}{2n}\|y - zD\|^2`, *those of* :math:`n\lambda`. *Hence the 2 under the root: without the half it is*
:math:`\sqrt{t\lambda}`.

**(iii)** *Units. With data and codes in other units,* :math:`y \to sy,\ z \to sz`, *and the same atoms, the objective
is multiplied by* :math:`s^2` *if R becomes* :math:`s^2 R(\cdot/s)`: *the weight of* :math:`L_1` *grows as s, that of*
:math:`L_0` *as* :math:`s^2`.

**(iv)** *Bias and weight. For every R and c,* :math:`\mathrm{prox}_{t(R + \langle c, \cdot\rangle)}(u) =
\mathrm{prox}_{tR}(u - tc)`: *an encoder bias is a linear term of R. On* :math:`z \ge 0`, :math:`\lambda\|z\|_1` *is
linear itself, so that a ReLU encoder is a function of* :math:`b_e - t\lambda` *alone: its codes do not tell its
bias from its weight. A JumpReLU encoder tells both: it jumps by* :math:`\theta`, *at* :math:`\theta - b_e`.

**(v)** *Norms. If the norms of the atoms are free, the weight of* :math:`L_1` *is not identified either:*
:math:`(z/s, sD)` *reconstructs the same at the penalty* :math:`\lambda\|z\|_1/s`. *The count* :math:`\lambda\|z\|_0`
*does not change.*

**Proof.** (i) Keeping u costs :math:`t\lambda` and saves :math:`u^2/2`; :math:`\frac12(z - u)^2 + t\lambda|z|` has
slope :math:`z - u \pm t\lambda`. (ii) Divide by 2, multiply by n. (iii) Substitute. (iv) :math:`\frac12\|z - u\|^2 +
t\langle c, z\rangle = \frac12\|z - (u - tc)\|^2 + \text{const}`; the JumpReLU encoder is 0 up to its jump and
:math:`x + b_e` from there on. (v) Substitute. ∎

**References.** Donoho and Johnstone (1994), Ideal spatial adaptation by wavelet shrinkage, Biometrika 81; Rajamanoharan
et al. (2024), Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders, arXiv:2407.14435.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import brentq
from sklearn.decomposition import sparse_encode

from proxsae import solve
from proxsae.regularizers import L0, L1, MCP, Cardinality, NonNegative, SquaredL2, Tilt, gated
from proxsae.verification import prove

rng = np.random.default_rng(0)

# %%
# (i) The threshold, measured and proved
# --------------------------------------
# Bisection for the u at which the shipped prox switches on.


def threshold(R, t):
    """Return the largest u that the prox sends to 0."""
    return brentq(lambda u: R.prox(np.array([u]), t)[0] - 1e-12, 0, 100, xtol=1e-13)


steps = np.geomspace(0.01, 10, 25)
for lam in (0.1, 1.0, 5.0):
    np.testing.assert_allclose([threshold(lam * L0(), t) for t in steps], np.sqrt(2 * steps * lam), rtol=1e-9)
    np.testing.assert_allclose([threshold(lam * L1(), t) for t in steps], steps * lam, rtol=1e-9)
for R in (L0(), L1()):
    print(proof := prove(R))
    assert proof.verdict == "proved"

# %%
# (ii) The half, against another library
# --------------------------------------
# `sparse_encode` of scikit-learn minimises with a half: the same number is the same lambda there. Twice the number is
# what a library without the half would need.

D = rng.normal(size=(30, 20))
D /= np.linalg.norm(D, axis=1, keepdims=True)
X = rng.normal(size=(10, 20))
theirs = sparse_encode(X, D, algorithm="lasso_cd", alpha=0.3, max_iter=20_000)
ours = solve(X, D, 0.3 * L1(), tol=1e-12, max_iter=20_000)
np.testing.assert_allclose(ours.codes, theirs, atol=1e-3)


def without_half(Z, lam):
    """Return the objective without the half, a row each."""
    return ((X - Z @ D) ** 2).sum(-1) + lam * np.abs(Z).sum(-1)


np.testing.assert_allclose(without_half(ours.codes, 2 * 0.3), 2 * ours.objective)

# %%
# (iii) Units
# -----------
# `rescaled` is this rule. :class:`proxsae.ProxSAE` trains on normalised data with it, and R keeps the units of X.

U, s = rng.normal(size=(50, 6)) * 2, 2.0
for R in (0.3 * L1(), 0.3 * L0(), 0.3 * MCP(2.0), 0.3 * SquaredL2(), Cardinality(2), gated(1.0, 0.4)):
    np.testing.assert_allclose(R.rescaled(s).prox(s * U), s * R.prox(U), atol=1e-12)
    np.testing.assert_allclose(R.rescaled(s).value(s * R.prox(U)), s**2 * R.value(R.prox(U)), atol=1e-12)
print((0.3 * L1()).rescaled(s), " ", (0.3 * L0()).rescaled(s), " ", (0.3 * SquaredL2()).rescaled(s))

# %%
# (iv) The bias is a tilt of R
# ----------------------------

c, t = rng.normal(size=6), 0.7
for R in (0.3 * L1(), 0.3 * L0(), 0.3 * MCP(2.0), 0.3 * L0() + NonNegative()):
    np.testing.assert_allclose((R + Tilt(c)).prox(U, t), R.prox(U - t * c, t), atol=1e-14)

U = np.round(U, 6)  # so that sums below are the same numbers
for lam in (0.0, 0.25, 0.5, 2.0):
    R, bias = lam * L1() + NonNegative(), 0.25 + lam  # bias - lam is always 0.25
    np.testing.assert_allclose(R.prox(U + bias), NonNegative().prox(U + 0.25), atol=1e-14)
np.testing.assert_allclose((0.5 * L1() + NonNegative()).prox(U), (Tilt(0.5) + NonNegative()).prox(U), atol=1e-15)

# %%
# For JumpReLU the two are read off its graph: the jump has height theta, and happens at theta - b_e.

x = np.linspace(-2, 3, 500_001)
for theta, bias in ((1.0, 0.0), (1.0, 0.5), (1.5, 0.5)):
    z = (0.5 * theta**2 * L0() + NonNegative()).prox(x + bias)
    first = np.flatnonzero(z)[0]
    np.testing.assert_allclose([z[first], x[first]], [theta, theta - bias], atol=2e-5)

# %%
# (v) Free norms
# --------------

Z, small = ours.codes, 100.0
np.testing.assert_allclose((Z / small) @ (small * D), Z @ D, atol=1e-12)
print("L1 of the same reconstruction:", L1().value(Z)[0].round(3), "and", L1().value(Z / small)[0].round(5))
assert (L0().value(Z / small) == L0().value(Z)).all()

# %%
# A picture of the three constants
# --------------------------------
# Left: measured thresholds (marks) on the formulas (lines). Middle: three ReLU encoders that nothing tells apart.
# Right: three JumpReLU encoders that jump at the same x.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for lam, colour in ((0.1, "#0072b2"), (1.0, "#d55e00")):
    axes[0].loglog(
        steps, [threshold(lam * L0(), t) for t in steps], "o", color=colour, ms=3, label=rf"L0, $\lambda$ = {lam}"
    )
    axes[0].loglog(steps, np.sqrt(2 * steps * lam), color=colour, lw=1)
    axes[0].loglog(
        steps, [threshold(lam * L1(), t) for t in steps], "x", color=colour, ms=4, label=rf"L1, $\lambda$ = {lam}"
    )
    axes[0].loglog(steps, steps * lam, color=colour, lw=1)
axes[0].set(xlabel="step t", title=r"thresholds $\sqrt{2t\lambda}$, $t\lambda$")
axes[0].legend(fontsize=8)
x = np.linspace(-2, 3, 501)
for bias, style in ((0.25, "-"), (0.75, "--"), (2.25, ":")):
    R = (bias - 0.25) * L1() + NonNegative()
    axes[1].plot(x, R.prox(x + bias), style, lw=2.5, label=f"bias {bias}, weight {bias - 0.25}")
    R = 0.5 * bias**2 * L0() + NonNegative()
    axes[2].plot(x, R.prox(x + bias - 0.25), style, lw=2, label=f"bias {bias - 0.25}, theta {bias}")
axes[1].set(xlabel="x", title="ReLU: one function")
axes[2].set(xlabel="x", title="JumpReLU: three functions")
axes[1].legend(fontsize=8)
axes[2].legend(fontsize=8)
plt.show()
