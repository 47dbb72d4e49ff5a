r"""
1. An encoder is one proximal step
==================================

Rows are samples, atoms are the rows of :math:`D`, and :math:`y = x - b`. The sparse code of a sample minimises

.. math:: F(z) = \tfrac12 \|y - z D\|^2 + R(z), \qquad G = D D^\top, \quad u = y D^\top .

**Theorem.** **(i)** *The proximal-gradient step of size t from z = 0 is the encoder of a sparse autoencoder,*
:math:`\hat z = \mathrm{prox}_{tR}(x W + b_e)` *with* :math:`W = t D^\top` *and* :math:`b_e = -t\, b D^\top`.

**(ii)** *If the atoms are orthonormal, the step of size 1 is a global minimiser of F, for every R, convex or not.*

**(iii)** *Let the atoms have norm 1, t = 1, and let R be* :math:`\lambda\|\cdot\|_1`, :math:`\lambda\|\cdot\|_0` *or*
:math:`\iota\{\|z\|_0 \le k\}`, *with or without* :math:`z \ge 0`. *Let S be the support of* :math:`\hat z`. *If*
:math:`\hat z` *minimises F, then*

.. math:: \text{(a)}\ \ \hat z_S (G_{SS} - I) = 0 .

*If it does so for all y of an open set with the same support S, the active atoms are orthonormal:* :math:`G_{SS} = I`.

**(iv)** *Conversely, for* :math:`R = \lambda\|\cdot\|_1`, :math:`\hat z` *minimises F if and only if (a) holds and the
residual correlates with no inactive atom:*

.. math:: \text{(b)}\ \ |\langle y - \hat z D, d_j\rangle| \le \lambda \ \text{ for } j \notin S
          \quad (\text{without the modulus under } z \ge 0).

**Proof.** (i) The gradient of the smooth part at 0 is :math:`-y D^\top`. (ii) With :math:`G = I`, :math:`F(z) =
\tfrac12\|z - u\|^2 + R(z) + \text{const}`. (iii) While z moves on S alone and keeps its signs, R has a constant
gradient :math:`\lambda s_S` (s the signs for L1, 0 for the others). A minimiser of F has :math:`(u - \hat z G)_S =
\lambda s_S`, and the prox has :math:`(u - \hat z)_S = \lambda s_S`; the difference is (a). On an open set of y with
one S and, made smaller, one s, the code :math:`\hat z_S = y D_S^\top - \lambda s_S` moves in all directions of the
range of :math:`G_{SS}`, so (a) gives :math:`G_{SS}(G_{SS} - I) = 0`: a projection. Its rank is its trace, :math:`|S|`,
so it is I. (iv) F is convex: :math:`\hat z` is a minimiser iff :math:`u - \hat z G \in \partial R(\hat z)`, which is
:math:`\lambda s_S` on S, that is (a), and (b) elsewhere. ∎

"Exact if and only if the active atoms are orthonormal" is this theorem in short. The long form has two surprises,
below.

**References.** Gregor and LeCun (2010), Learning fast approximations of sparse coding, ICML; Papyan, Romano and Elad
(2017), Convolutional neural networks analyzed via convolutional sparse coding, JMLR 18.
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
    encoder = Amortized.of(t * R, torch.tensor(t * D), torch.tensor(-t * b @ D.T))
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


def minimum(Y, D, R, size):
    """Return min F, a row each: for L0 and cardinality the best of all supports of at most `size` atoms."""
    if R.is_convex:
        return solve(Y, D, R, tol=1e-12, max_iter=50_000).objective
    best = np.full(len(Y), np.inf)
    for support in (list(s) for n in range(size + 1) for s in combinations(range(len(D)), n)):
        Z = np.zeros((len(Y), len(D)))
        Z[:, support] = Y @ np.linalg.pinv(D[support])
        best = np.minimum(best, objective(Z, Y, D, R))
    return best


def excess(Y, D, R, size=2):
    """Return F(one step) - min F, a row each."""
    return objective(R.prox(Y @ D.T), Y, D, R) - minimum(Y, D, R, size)


Q = np.linalg.qr(rng.normal(size=(20, 20)))[0][:8]
Y = 2 * rng.normal(size=(50, 20))
for R in (SOFT, RELU, 0.7 * L0(), Cardinality(3)):
    assert np.abs(excess(Y, Q, R, size=8)).max() < 1e-11

# %%
# (iii) and (iv) The conditions decide
# ------------------------------------
# Eight orthonormal atoms, then eight others that correlate with them. For L1, (a) and (b) hold for exactly those
# samples on which one step is optimal. For AbsTopK, (a) holds wherever one step is optimal; it is not enough.

mixed = np.vstack([Q, Q @ np.linalg.qr(rng.normal(size=(20, 20)))[0]])
Y = rng.laplace(size=(2000, 8)) @ Q * 0.6 + rng.normal(size=(2000, 20)) * rng.choice([0.0, 0.4], size=(2000, 1))
for R in (SOFT, RELU, Cardinality(2)):
    Z = R.prox(Y @ mixed.T)
    a = (np.abs(Z @ (mixed @ mixed.T) - Z) * (Z != 0)).max(-1) < 1e-9
    correlation = (Y - Z @ mixed) @ mixed.T
    b = (np.where(Z != 0, 0.0, correlation if R.is_nonnegative else np.abs(correlation))).max(-1) <= 0.5
    is_exact = excess(Y, mixed, R) < 1e-9
    assert (is_exact == (a & b)).all() if R.is_convex else (is_exact <= a).all()
    print(f"{R!s:24s} (a) on {a.mean():4.0%} of the samples, one step exact on {is_exact.mean():4.0%}")
    assert 0.05 < is_exact.mean() < a.mean() < 0.95

# %%
# Surprise one: orthonormal *active* atoms are not enough, (b) can fail. Below, atom 2 is off; but once atom 1 has
# explained its part of y, the residual correlates with atom 2. One step never looks back.

pair = np.array([[1.0, 0.0], [-0.6, 0.8]])
y = np.array([[3.0, 2.0]])
print(RELU.prox(y @ pair.T), "is the step,", solve(y, pair, RELU, tol=1e-12).codes.round(3), "the optimal code")
assert excess(y, pair, RELU)[0] > 0.4

# %%
# Surprise two: a *single* sample can be exact by cancellation. Each row of the inner products below sums to zero, so
# four equal codes do not see each other. A change of the sample breaks it, as (iii) says for an open set.

G = np.eye(4) + 0.3 * np.array([[0, 1, -1, 0], [1, 0, 0, -1], [-1, 0, 0, 1], [0, -1, 1, 0]])
eigenvalues, vectors = np.linalg.eigh(G)
D4 = vectors * np.sqrt(eigenvalues)  # D4 @ D4.T is G
y = np.linalg.solve(D4, np.full(4, 1.5))[None, :]  # u = (1.5, 1.5, 1.5, 1.5)
assert excess(y, D4, RELU)[0] < 1e-11
assert excess(y + 0.2 * D4[:1], D4, RELU)[0] > 1e-4

# %%
# Where one step is optimal
# -------------------------
# Left: the samples of a plane and two atoms at 60 degrees, under ReLU. One step is optimal to the left of and below the
# red line, where at most one atom is active. Right: two active atoms at inner product g, the sample chosen so that one
# step gives the same code for every g and both R. It is optimal at g = 0 alone; the curves part where the optimal ReLU
# code has only one atom left.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axis = np.linspace(-1, 4, 251)
plane = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
slanted = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
field = excess(plane, slanted, RELU).reshape(251, 251)
image = left.pcolormesh(axis, axis, field, cmap="Blues", rasterized=True)
left.contour(axis, axis, field < 1e-9, levels=[0.5], colors="#cc3311")
left.text(-0.8, 3.4, "exact", color="#cc3311")
figure.colorbar(image)
for d, name in zip(slanted, ("atom 1", "atom 2"), strict=True):
    left.annotate("", xy=1.5 * d, xytext=(0, 0), arrowprops={"arrowstyle": "->", "color": "#d55e00", "lw": 2})
    left.text(*(1.6 * d), name, color="#d55e00")
left.set(xlabel="$y_1$", ylabel="$y_2$", aspect="equal", title="F(one step) - min F")

inner_products, code = np.linspace(-0.95, 0.95, 39), np.array([1.5, 1.0])
pairs = [np.array([[1.0, 0.0], [g, np.sqrt(1 - g * g)]]) for g in inner_products]
for R, u, style in ((RELU, code + 0.5, "-"), (Cardinality(2), code, "--")):
    curve = [excess(np.linalg.solve(D, u)[None, :], D, R)[0] for D in pairs]
    assert np.argmin(curve) == 19
    right.plot(inner_products, curve, style, label=str(R))
right.set(xlabel="inner product g of two active atoms", ylim=(0, 4), title="F(one step) - min F")
right.legend()
plt.show()
