r"""
1. An encoder is one proximal step
==================================

Rows are samples, atoms are the rows of :math:`D`, and :math:`y = x - b`. The sparse code of a sample minimises

.. math:: F(z) = \tfrac12 \|y - z D\|^2 + R(z), \qquad G = D D^\top, \quad u = y D^\top .

**Theorem.** **(i)** *The proximal-gradient step of size t from z = 0 is the encoder of a sparse autoencoder,*
:math:`\hat z = \mathrm{prox}_{tR}(x W + b_e)` *with* :math:`W = t D^\top` *and* :math:`b_e = -t\, b D^\top`.

**(ii)** *If the atoms are orthonormal, the step of size 1 is a global minimiser of F, for every R, convex or not.*

**(iii)** *Let the atoms have norm 1, t = 1, and* :math:`R = \lambda\|\cdot\|_1`, *with or without* :math:`z \ge 0`.
*Let S be the support of* :math:`\hat z`. *Then* :math:`\hat z` *minimises F if and only if*

.. math:: \text{(a)}\ \ \hat z_S (G_{SS} - I) = 0 \qquad\text{and}\qquad
          \text{(b)}\ \ |\langle y - \hat z D, d_j\rangle| \le \lambda \ \text{ for } j \notin S

*(without the modulus under* :math:`z \ge 0`). *If this holds on an open set of y that share the support S, then the
active atoms are orthonormal:* :math:`G_{SS} = I`.

**Proof.** (i) The gradient of the smooth part at 0 is :math:`-y D^\top`. (ii) With :math:`G = I`, :math:`F(z) =
\tfrac12\|z - u\|^2 + R(z) + \text{const}`. (iii) F is convex, so :math:`\hat z` is a minimiser iff :math:`u - \hat z
G \in \partial R(\hat z)`, and the prox gives :math:`u - \hat z \in \partial R(\hat z)`. On S the subdifferential is a
single number :math:`\lambda s_i`, so both hold iff :math:`\hat z G = \hat z` there, which is (a); off S the first is
(b). On an open set of y with one S and one sign vector s, the code :math:`\hat z_S = y D_S^\top - \lambda s` moves in
all directions of the range of :math:`G_{SS}`, so (a) gives :math:`G_{SS}(G_{SS} - I) = 0`: a projection. Its rank is
its trace, :math:`|S|`, so it is I. ∎

"Exact if and only if the active atoms are orthonormal" is this theorem in short. The long form has two surprises.
"""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import torch

from proxsae import solve
from proxsae.encoders import Amortized
from proxsae.regularizers import L0, L1, Cardinality, NonNegative

rng = np.random.default_rng(0)
SOFT, RELU = 0.5 * L1(), 0.5 * L1() + NonNegative()

# %%
# (i) One step is an encoder
# --------------------------
# `Amortized` is the encoder that :class:`proxsae.ProxSAE` trains; here its weights are set instead.

D = rng.normal(size=(40, 20))
D /= np.linalg.norm(D, axis=1, keepdims=True)
X, b = rng.normal(size=(7, 20)), rng.normal(size=20)
t = 0.5 / np.linalg.eigvalsh(D @ D.T)[-1]

for R in (SOFT, RELU, 0.2 * L0() + NonNegative(), Cardinality(5), NonNegative() + Cardinality(5)):
    encoder = Amortized(t * R, torch.tensor(t * D), torch.tensor(-t * b @ D.T))
    with torch.no_grad():
        encoded = encoder(torch.tensor(X)).numpy()
    np.testing.assert_allclose(encoded, R.prox(t * (X - b) @ D.T, t), atol=1e-14)

# %%
# (ii) Orthonormal atoms: exact for every R
# -----------------------------------------
# For convex R a converged solver is the referee; for the others, least squares on each of the 256 supports.


def objective(Z, Y, D, R):
    """Return F(z), a row each."""
    return 0.5 * ((Y - Z @ D) ** 2).sum(-1) + R.value(Z)


def excess(Y, D, R):
    """Return F(one step) - min F, a row each, for a convex R."""
    return objective(R.prox(Y @ D.T), Y, D, R) - solve(Y, D, R, tol=1e-12, max_iter=50_000).objective


Q = np.linalg.qr(rng.normal(size=(20, 20)))[0][:8]
Y = 2 * rng.normal(size=(50, 20))
assert np.abs(excess(Y, Q, SOFT)).max() < 1e-11
assert np.abs(excess(Y, Q, RELU)).max() < 1e-11

for R in (0.7 * L0(), Cardinality(3)):
    best = np.full(len(Y), np.inf)
    for support in (list(s) for size in range(9) for s in combinations(range(8), size)):
        Z = np.zeros((len(Y), 8))
        Z[:, support] = np.linalg.lstsq(Q[support].T, Y.T)[0].T
        best = np.minimum(best, objective(Z, Y, Q, R))
    np.testing.assert_allclose(objective(R.prox(Y @ Q.T), Y, Q, R), best, rtol=1e-12)

# %%
# (iii) The condition decides
# ---------------------------
# Eight orthonormal atoms, then eight others that correlate with them. Conditions (a) and (b) hold for exactly those
# samples on which one step is optimal.

mixed = np.vstack([Q, Q @ np.linalg.qr(rng.normal(size=(20, 20)))[0]])
Y = rng.laplace(size=(4000, 8)) @ Q * 0.6 + rng.normal(size=(4000, 20)) * rng.choice([0.0, 0.4], size=(4000, 1))
for R in (SOFT, RELU):
    Z = R.prox(Y @ mixed.T)
    a = (np.abs(Z @ (mixed @ mixed.T) - Z) * (Z != 0)).max(-1) < 1e-9
    correlation = (Y - Z @ mixed) @ mixed.T
    b = (np.where(Z != 0, 0.0, correlation if R.is_nonnegative else np.abs(correlation))).max(-1) <= 0.5
    is_exact = excess(Y, mixed, R) < 1e-9
    assert (is_exact == (a & b)).all()
    print(f"{R}: (a) on {a.mean():.0%}, (b) on {b.mean():.0%}, one step exact on {is_exact.mean():.0%} of the samples")
    assert 0.05 < is_exact.mean() < 0.95

# %%
# Surprise one: orthonormal *active* atoms are not enough, (b) can fail. Below, atom 2 is off; but once atom 1 has
# explained its part of y, the residual correlates with atom 2. One step never looks back.

pair = np.array([[1.0, 0.0], [-0.6, 0.8]])
y = np.array([[3.0, 2.0]])
print(RELU.prox(y @ pair.T), "is the step,", solve(y, pair, RELU, tol=1e-12).codes.round(3), "the optimal code")
assert excess(y, pair, RELU)[0] > 0.4

# %%
# Surprise two: a *single* sample can be exact by cancellation. Each row of the inner products below sums to zero, so
# four equal codes do not see each other. A change of the sample breaks it, as the open set in (iii) demands.

G = np.eye(4) + 0.3 * np.array([[0, 1, -1, 0], [1, 0, 0, -1], [-1, 0, 0, 1], [0, -1, 1, 0]])
eigenvalues, vectors = np.linalg.eigh(G)
D4 = vectors * np.sqrt(eigenvalues)  # D4 @ D4.T is G
y = np.linalg.solve(D4, np.full(4, 1.5))[None, :]  # u = (1.5, 1.5, 1.5, 1.5)
assert excess(y, D4, RELU)[0] < 1e-11
assert excess(y + 0.2 * D4[:1], D4, RELU)[0] > 1e-4

# %%
# Where one step is optimal
# -------------------------
# Left: the samples of a plane and two atoms at 60 degrees, under ReLU. One step is optimal on the near side of the
# red line: where no atom or only one is active. Right: two active atoms at inner product g, the sample chosen so that
# the step gives the same code for every g; it is the optimal code at g = 0 alone.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axis = np.linspace(-1, 4, 101)
plane = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
slanted = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
field = excess(plane, slanted, RELU).reshape(101, 101)
image = left.pcolormesh(axis, axis, field, cmap="Blues", rasterized=True)
left.contour(axis, axis, field < 1e-9, levels=[0.5], colors="#cc3311")
left.text(-0.8, 3.4, "exact", color="#cc3311")
figure.colorbar(image, label="F(one step) - min F")
for d, name in zip(slanted, ("atom 1", "atom 2"), strict=True):
    left.annotate("", xy=1.5 * d, xytext=(0, 0), arrowprops={"arrowstyle": "->", "color": "#d55e00", "lw": 2})
    left.text(*(1.6 * d), name, color="#d55e00")
left.set(xlabel="$y_1$", ylabel="$y_2$", aspect="equal")

inner_products = np.linspace(-0.95, 0.95, 39)
for R, style in ((SOFT, "-"), (RELU, "--")):
    curve = []
    for g in inner_products:
        D = np.array([[1.0, 0.0], [g, np.sqrt(1 - g * g)]])
        curve += excess(np.linalg.solve(D, [2.0, 1.5])[None, :], D, R).tolist()
    right.plot(inner_products, curve, style, label=str(R))
    assert np.argmin(curve) == 19
right.set(xlabel="inner product g of two active atoms", ylabel="F(one step) - min F", ylim=(0, 4))
right.legend()
plt.show()
