r"""
7. The amortisation gap
=======================

An encoder computes a code in one step; a solver would reach the optimum. Atoms have norm 1, :math:`G = D D^\top`,
:math:`E = G - I` is what is off the diagonal, :math:`u = y D^\top`, :math:`\hat z = \mathrm{prox}_R(u)` is the
one-step code, S its support, and F the objective :math:`\frac12\|y - zD\|^2 + R(z)`.

**Theorem.** **(i)** *Let R be convex,* :math:`z^*` *a minimiser of F, T the union of both supports, and*
:math:`\sigma > 0` *the smallest eigenvalue of* :math:`G_{TT}`. *With* :math:`e = \hat z_S E_{ST}`, *a vector over T,*

.. math:: F(\hat z) - F(z^*) \;\le\; \tfrac12\, e\, G_{TT}^{-1} e^\top \;\le\; \frac{\|e\|^2}{2 \sigma}
          \;\le\; \frac{|T|\, \mu^2 \|\hat z\|_1^2}{2 (1 - (|T| - 1) \mu)},
          \qquad \|\hat z - z^*\| \le \frac{\|e\|}{\sigma},

*where* :math:`\mu` *is the largest* :math:`|E_{ij}|` *and the third bound needs* :math:`(|T| - 1)\mu < 1`.

**(ii)** *For AbsTopK and TopK, against the best code on the support S, if* :math:`G_{SS}` *is invertible and that
code has the signs that R allows, the first bound is an equality with T = S.*

**(iii)** *For* :math:`R = \lambda\|\cdot\|_1`, *with or without* :math:`z \ge 0`, *let two atoms with inner product*
:math:`0 < |g| < 1` *be the optimal support* :math:`\{i\}` *on one open set of samples and* :math:`\{i, j\}` *on
another. Then no encoder* :math:`z_i = a(\langle w_i, y\rangle + b_i)`, *whatever its activation a and its trained*
:math:`w_i`, *is optimal on both.*

**Proof.** (i) The prox gives :math:`u - \hat z \in \partial R(\hat z)`; hence :math:`\hat z G - u + u - \hat z = \hat
z E` is a subgradient of F at :math:`\hat z`. As F is a quadratic with matrix G plus a convex function, :math:`F(z^*)
\ge F(\hat z) - \langle \hat z E, v\rangle + \frac12 v G v^\top` with :math:`v = \hat z - z^*`, which lives on T.
Maximise over v; then use :math:`|e_j| \le \mu\|\hat z\|_1` and Gershgorin. Both subgradients together give
:math:`\langle \hat z E, v \rangle \ge v G v^\top \ge \sigma\|v\|^2`, the last bound. (ii) Here :math:`\hat z_S =
u_S`, and the best code solves :math:`z_S G_{SS} = u_S`, so :math:`v G_{SS} = e` and the difference of the squares is
:math:`\frac12 v G_{SS} v^\top`. (iii) On the sets :math:`z_i` has the gradients :math:`d_i` and :math:`(d_i - g
d_j)/(1 - g^2)`, which are not parallel; that of the encoder is parallel to :math:`w_i` everywhere. ∎

So the gap is quadratic in the inner products of co-active atoms: each of S with each that is active in either code.

**References.** Gregor and LeCun (2010), Learning fast approximations of sparse coding, ICML; Cremer, Li and Duvenaud
(2018), Inference suboptimality in variational autoencoders, ICML; O'Neill, Gumran and Klindt (2024), Compute optimal
inference and provable amortisation gap in sparse autoencoders, arXiv:2411.13117.
"""

import matplotlib.pyplot as plt
import numpy as np

from proxsae import ProxSAE, solve
from proxsae.regularizers import L1, Cardinality, NonNegative, SquaredL2
from proxsae.solvers import Problem

rng = np.random.default_rng(0)


def objective(Z, Y, D, R):
    """Return F(z), a row each."""
    return 0.5 * ((Y - Z @ D) ** 2).sum(-1) + R.value(Z)


def unit(D):
    """Return D with atoms of norm 1."""
    return D / np.linalg.norm(D, axis=1, keepdims=True)


def bounds(z, T, G):
    """Return the three bounds on the gap, and the bound on the distance, of one code."""
    E, mu = G - np.eye(len(G)), np.abs(G - np.eye(len(G))).max()
    e, G_TT = (z @ E)[T], G[np.ix_(T, T)]
    sigma, room = np.linalg.eigvalsh(G_TT)[0], 1 - (T.sum() - 1) * mu
    coherence_bound = T.sum() * mu**2 * np.abs(z).sum() ** 2 / (2 * room) if room > 0 else np.inf
    return 0.5 * e @ np.linalg.solve(G_TT, e), e @ e / (2 * sigma), coherence_bound, np.sqrt(e @ e) / sigma


# %%
# (i) The bounds, sample by sample
# --------------------------------
# From orthonormal atoms to random ones. The gap falls with the square of the inner products, as its bound does.

Q, N = np.linalg.qr(rng.normal(size=(48, 48)))[0][:32], rng.normal(size=(32, 48)) / np.sqrt(48)
Y = rng.laplace(size=(100, 32)) @ Q
mixtures, rows = np.geomspace(1e-3, 1, 10), []
for R in (0.5 * L1() + 0.1 * SquaredL2(), 0.5 * L1(), 0.5 * L1() + NonNegative()):
    rows.clear()
    for mixture in mixtures:
        D = unit(Q + mixture * N)
        ours, best = R.prox(Y @ D.T), solve(Y, D, R, tol=1e-14, max_iter=50_000)
        gap = objective(ours, Y, D, R) - best.objective
        limits = [bounds(z, (z != 0) | (other != 0), D @ D.T) for z, other in zip(ours, best.codes, strict=True)]
        first, second, third, distance = np.transpose(limits)
        assert (gap <= first + 1e-11).all()
        assert (first <= second * (1 + 1e-9)).all()
        assert (second <= third * (1 + 1e-9)).all()
        assert (np.linalg.norm(ours - best.codes, axis=1) <= distance + 1e-6).all()
        rows.append((gap.mean(), first.mean(), second.mean(), third.mean()))
print("first bound / measured gap:", *(f"{row[1] / row[0]:.3f}" for row in rows))
slope = np.polyfit(np.log(mixtures[:5]), np.log([row[0] for row in rows[:5]]), 1)[0]
print(f"the gap grows with the power {slope:.2f} of the inner products")
assert abs(slope - 2) < 0.1

# %%
# (ii) Equality for AbsTopK
# -------------------------

D, R = unit(Q + 0.5 * N), Cardinality(5)
ours = R.prox(Y @ D.T)
for y, z in zip(Y, ours, strict=True):
    S = z != 0
    refit = np.linalg.lstsq(D[S].T, y)[0]
    gap = 0.5 * np.sum((y - z @ D) ** 2) - 0.5 * np.sum((y - refit @ D[S]) ** 2)
    np.testing.assert_allclose(gap, bounds(z, S, D @ D.T)[0], rtol=1e-9)

# %%
# (iii) The optimal code of atom 1 has two different gradients
# -------------------------------------------------------------

pair, R, h = np.array([[1.0, 0.0], [0.6, 0.8]]), 0.5 * L1() + NonNegative(), 1e-3
for y, gradient in ((np.array([1.5, -1.0]), pair[0]), (np.array([2.0, 2.0]), (pair[0] - 0.6 * pair[1]) / 0.64)):
    around = np.stack([y + h * np.array(shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))])
    z1 = solve(around, pair, R, tol=1e-15, max_iter=5000).codes[:, 0]
    np.testing.assert_allclose([(z1[0] - z1[1]) / (2 * h), (z1[2] - z1[3]) / (2 * h)], gradient, atol=1e-4)
    print(f"at y = {y} the gradient of z_1 is {gradient}")

# %%
# Measured: a trained encoder, and unrolled steps
# -----------------------------------------------
# A ReLU autoencoder on sparse data. Its trained matrix is better than one step with D transposed, and not optimal:
# :meth:`proxsae.ProxSAE.amortization_gap`. Proximal steps that start at its code close the gap.

atoms = unit(rng.normal(size=(64, 24)))
X = (((rng.random((4000, 64)) < 0.05) * rng.uniform(1, 2, size=(4000, 64))) @ atoms).astype(np.float32)
sae = ProxSAE(
    0.1 * L1() + NonNegative(), 64, n_steps=400, batch_size=256, learning_rate=5e-3, device="cpu", random_state=0
)
test = sae.fit(X).transform(X[:500]), X[:500].astype(np.float64) - sae.intercept_
Z, D, R = test[0].toarray().astype(np.float64), sae.components_.astype(np.float64), sae.regularizer_
problem = Problem(test[1], D, R, 1 / np.linalg.eigvalsh(D @ D.T)[-1])
best = solve(test[1], D, R, tol=1e-10, max_iter=20_000).objective
np.testing.assert_allclose(sae.amortization_gap(X[:500]), objective(Z, test[1], D, R) - best, atol=1e-3)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for curve, style, label in zip(
    np.transpose(rows),
    ("o-", "--", "--", "--"),
    ("measured", r"$\frac{1}{2} e\, G_{TT}^{-1} e^T$", r"$\|e\|^2 / 2\sigma$", "coherence"),
    strict=True,
):
    left.loglog(mixtures, curve, style, ms=4, label=label)
left.set(xlabel="size of the off-diagonal of $D D^T$", ylabel="F(one step) - min F", ylim=(1e-7, 1e3))
left.legend()
begins = []
for start, label in ((Z, "trained encoder"), (R.prox(test[1] @ D.T), "one step with $D^T$"), (0 * Z, "zero")):
    curve, codes = [], start
    for _ in range(101):
        curve.append((objective(codes, test[1], D, R) - best).mean() / best.mean())
        codes = problem.proximal_step(codes)
    right.semilogy(curve, label=f"from {label}")
    begins.append(curve[0])
    assert (np.diff(curve) <= 1e-12).all()
assert begins[0] < begins[1]
right.set(xlabel="proximal steps added", ylabel="mean gap / mean optimum", ylim=(1e-3, None))
right.legend()
plt.show()
