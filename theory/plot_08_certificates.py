r"""
8. Certificates: proofs that a code is globally optimal
=======================================================

**Theorem.** **(i)** *Duality gap. Let R be convex. For every code z and every* :math:`\theta` *with*
:math:`R^*(\theta D^\top) < \infty`,

.. math:: F(z) - \min F \;\le\; F(z) - \left[\langle \theta, y\rangle - \tfrac12\|\theta\|^2
          - R^*(\theta D^\top)\right].

*At a minimiser* :math:`z = z^*`, *with its residual* :math:`\theta = y - z^* D`, *the right side is 0.*

**(ii)** *Exact recovery condition. Let the atoms of S be independent. If* :math:`\max_{j \notin S} \|D_S^{+\top}
d_j\|_1 < 1` *and y lies in their span, every minimiser of the lasso, at every* :math:`\lambda > 0`, *has its support
in S. For unit-norm atoms of coherence* :math:`\mu` *and* :math:`|S| = k` *this holds if* :math:`\mu < 1/(2k - 1)`.

**(iii)** *Cardinality, with noise. Let z have exactly k non-zeros on S and be the least-squares code there, and*
:math:`\delta = \max_{|\Omega| = 2k} \|G_{\Omega\Omega} - I\|` *the restricted isometry constant,* :math:`\delta < 1`.
*If*

.. math:: \max_{j \notin S} |\langle y - z D, d_j \rangle| \;<\; (1 - \delta) \min_{i \in S} |z_i| ,

*z is the only global minimiser of* :math:`\|y - zD\|` *over* :math:`\|z\|_0 \le k`. *Unit-norm atoms have*
:math:`\delta \le (2k - 1)\mu`, *which is cheap; so for y = zD, any code with* :math:`\mu < 1/(2k - 1)` *is proved
optimal.*

**Proof.** (i) With :math:`F(z) \ge \langle\theta, y - zD\rangle - \frac12\|\theta\|^2 + R(z)` for every z, minimise
over z. At a minimiser :math:`\theta D^\top \in \partial R(z^*)`, and Fenchel and Young are equal. (ii) Minimise the
lasso over codes on S: the residual r lies in the span of :math:`D_S` and :math:`r D_S^\top = \lambda s` with
:math:`|s_i| \le 1`, so :math:`|\langle r, d_j\rangle| = \lambda |\langle s, D_S^{+\top} d_j\rangle| < \lambda` for
the others: optimal for the whole problem, and as :math:`yD^\top - zG` is the same for all minimisers, strictly less
than :math:`\lambda` keeps :math:`z_j = 0` in each. With coherence, the norm is at most :math:`k\mu/(1 - (k-1)\mu)`.
(iii) Let :math:`z'` have support :math:`S' \ne S`, :math:`|S'| \le k`, and let :math:`m = |S \setminus S'| \ge |S'
\setminus S|`, :math:`h = z' - z`, :math:`c = (y - zD)D^\top`, which is 0 on S. The squared error grows by

.. math:: \|hD\|^2 - 2\langle c, h\rangle \ge (1 - \delta)(a^2 + b^2) - 2 \sqrt m\, \|c\|_\infty b
          \ge (1 - \delta) a^2 - \frac{m \|c\|_\infty^2}{1 - \delta},

where a and b are the norms of h on :math:`S \setminus S'` and :math:`S' \setminus S`. As :math:`a \ge \sqrt m
\min|z_i|`, this is positive. On S itself the least-squares code is unique. ∎
"""

from itertools import combinations

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import hadamard

from proxsae import solve
from proxsae.regularizers import L1, Cardinality, NonNegative
from proxsae.solvers import problem_of
from proxsae.solvers.certificates import duality_gap

rng = np.random.default_rng(0)


def unit(D):
    """Return D with atoms of norm 1."""
    return D / np.linalg.norm(D, axis=1, keepdims=True)


# %%
# (i) The gap bounds the true error, and a solver of another kind agrees
# ----------------------------------------------------------------------
# Along the iterations of ISTA; the reference is an interior-point method, cvxpy's Clarabel.

D, y = unit(rng.normal(size=(60, 30))), rng.normal(size=(1, 30))
paths = {}
for R in (0.3 * L1(), 0.3 * L1() + NonNegative()):
    z = cp.Variable(60, nonneg=R.is_nonnegative)
    minimum = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y[0] - z @ D) + 0.3 * cp.norm1(z))).solve(solver="CLARABEL")
    problem = problem_of(y, D, R, 1 / np.linalg.eigvalsh(D @ D.T)[-1])
    codes, errors, gaps = np.zeros((1, 60)), [], []
    for _ in range(400):
        report = duality_gap(problem, codes)
        errors.append(report.objective[0] - minimum)
        gaps.append(report.certificate[0])
        codes = problem.proximal_step(codes)
    assert (np.array(errors) <= np.array(gaps) + 1e-7).all()
    s = solve(y, D, R, tol=1e-9, max_iter=5000)
    assert s.certificate_kind == "duality gap"
    assert abs(s.objective[0] - minimum) < 1e-6
    paths[R] = errors, gaps

# %%
# (ii) The exact recovery condition, support by support
# -----------------------------------------------------
# Ten atoms, all pairs: where the condition holds, the lasso never leaves the support; where it fails, it may.

D, R = unit(rng.normal(size=(10, 8))), 0.1 * L1()
mu = np.abs(D @ D.T - np.eye(10)).max()
left_support = {True: 0, False: 0}
for S in map(list, combinations(range(10), 2)):
    others = np.setdiff1d(np.arange(10), S)
    condition = np.abs(np.linalg.pinv(D[S]).T @ D[others].T).sum(axis=0).max()
    assert condition <= 2 * mu / (1 - mu)
    Y = np.array([[1.0, 1.0], [1.0, -1.0], [0.3, 2.0], [-2.0, 0.3]]) @ D[S]
    codes = solve(Y, D, R, tol=1e-12, max_iter=50_000).codes
    left_support[bool(condition < 1)] += int((np.abs(codes[:, others]) > 1e-5).any(axis=1).sum())
print("samples whose code leaves the support, where the condition holds and where it fails:", left_support)
assert left_support[True] == 0
assert left_support[False] > 0

# %%
# (iii) Certified codes are the best of all supports
# --------------------------------------------------
# Unit vectors and a Hadamard basis, :math:`\mu = 1/4`, two non-zeros and noise. Candidates come from iterative hard
# thresholding and a refit. Every certificate is confirmed by the 496 supports; the isometry constant, itself computed
# by enumeration, certifies more than coherence, and some optimal codes have no certificate.

D = np.vstack([np.eye(16), hadamard(16) / 4])
G = D @ D.T
blocks = np.array([G[np.ix_(S, S)] for S in combinations(range(32), 4)])
delta, mu = np.abs(np.linalg.eigvalsh(blocks) - 1).max(), np.abs(G - np.eye(32)).max()
print(f"delta_4 = {delta:.3f}, (2k - 1) mu = {3 * mu:.3f}")
assert delta <= 3 * mu

supports = [list(S) for S in combinations(range(32), 2)]
projections = np.array([np.linalg.pinv(D[S]) @ D[S] for S in supports])
noises, shares = np.linspace(0, 0.5, 11), []
for noise in noises:
    planted = (rng.random((200, 32)).argsort(axis=1) < 2) * rng.choice([-1.0, 1.0], size=(200, 32))
    Y = planted @ D + noise * rng.normal(size=(200, 16))
    best = ((Y**2).sum(1) - np.einsum("nd,sde,ne->ns", Y, projections, Y).max(1)) / 2
    candidates = solve(Y, D, Cardinality(2), max_iter=5000)
    verdicts = []
    for y, z, optimum in zip(Y, candidates.codes, best, strict=True):
        S = np.flatnonzero(z)
        refit = np.linalg.lstsq(D[S].T, y)[0]
        residual = y - refit @ D[S]
        outside = np.abs(np.delete(D @ residual, S)).max()
        is_optimal = 0.5 * residual @ residual <= optimum + 1e-9
        by_coherence, by_isometry = (outside < (1 - d) * np.abs(refit).min() and len(S) == 2 for d in (3 * mu, delta))
        assert is_optimal or not by_isometry
        assert by_isometry or not by_coherence
        verdicts.append((is_optimal, by_isometry, by_coherence))
    shares.append(np.mean(verdicts, axis=0))
assert shares[0].tolist() == [1.0, 1.0, 1.0]

# %%
# What the certificates see
# -------------------------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for (R, (errors, gaps)), colour in zip(paths.items(), ("#0072b2", "#d55e00"), strict=True):
    left.semilogy(gaps, color=colour, label=f"certificate, {R}")
    left.semilogy(np.maximum(errors, 1e-9), ":", color=colour, label="true error")
left.set(xlabel="proximal steps", ylabel="distance to the optimum", title="duality gap", ylim=(1e-7, 100))
left.legend(fontsize=8)
for share, label in zip(np.transpose(shares), ("optimal", "proved by isometry", "proved by coherence"), strict=True):
    right.plot(noises, share, "o-", label=label)
right.set(xlabel="noise", ylabel="share of the codes", title="cardinality, k = 2")
right.legend(fontsize=8)
plt.show()
