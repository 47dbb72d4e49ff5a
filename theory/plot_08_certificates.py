r"""
8. Certificates: proofs that a code is globally optimal
=======================================================

**Theorem.** **(i)** *Duality gap. Let R be convex. For every code z and every* :math:`\theta` *with*
:math:`R^*(\theta D^\top) < \infty`,

.. math:: F(z) - \min F \;\le\; F(z) - \left[\langle \theta, y\rangle - \tfrac12\|\theta\|^2
          - R^*(\theta D^\top)\right].

*At a minimiser* :math:`z = z^*`, *with its residual* :math:`\theta = y - z^* D`, *the right side is 0.*

**(ii)** *Exact recovery condition. Let the atoms of S be independent,* :math:`P_S` *the projection onto their span,
and z the minimiser of the lasso among codes on S. If*

.. math:: |\langle y - y P_S, d_j\rangle| < \lambda (1 - M_j), \quad M_j = \|D_S^{+\top} d_j\|_1,
          \quad \text{for all } j \notin S,

*z is the only global minimiser of the lasso. For y in the span this is* :math:`\max_j M_j < 1`. *Unit-norm atoms of
coherence* :math:`\mu` *and* :math:`|S| = k` *have* :math:`M_j \le k\mu / (1 - (k - 1)\mu)`, *which is cheap, and below
1 if* :math:`\mu < 1/(2k - 1)`.

**(iii)** *Cardinality, with noise. Let z have exactly k non-zeros on S and be the least-squares code there, and*
:math:`\delta = \max_{|\Omega| = 2k} \|G_{\Omega\Omega} - I\|` *the restricted isometry constant,* :math:`\delta < 1`.
*If*

.. math:: \max_{j \notin S} |\langle y - z D, d_j \rangle| \;<\; (1 - \delta) \min_{i \in S} |z_i| ,

*z is the only global minimiser of* :math:`\|y - zD\|` *over* :math:`\|z\|_0 \le k`. *Unit-norm atoms have*
:math:`\delta \le (2k - 1)\mu`, *which is cheap; so for y = zD, any code with* :math:`\mu < 1/(2k - 1)` *is proved
optimal.*

**Proof.** (i) With :math:`F(z) \ge \langle\theta, y - zD\rangle - \frac12\|\theta\|^2 + R(z)` for every z, minimise
over z. At a minimiser :math:`\theta D^\top \in \partial R(z^*)`, and Fenchel and Young are equal. (ii) The residual is
:math:`r = (y - yP_S) + r_S` with :math:`r D_S^\top = \lambda s`, :math:`|s_i| \le 1`, so :math:`r_S = \lambda s
D_S^{+\top}` and :math:`|\langle r, d_j\rangle| \le |\langle y - yP_S, d_j\rangle| + \lambda M_j < \lambda` for the
others: :math:`\theta = r` closes the gap of (i). All minimisers have the same zD, hence the same r, and strictly less
than :math:`\lambda` makes their :math:`z_j` 0; on S the atoms are independent. With coherence, :math:`M_j \le
\|G_{SS}^{-1}\|_1 \|D_S d_j\|_1`, and the Neumann series bounds the inverse. (iii) Let :math:`z'` have support
:math:`S' \ne S`, :math:`|S'| \le k`, and let :math:`m = |S \setminus S'| \ge |S' \setminus S|`, :math:`h = z' - z`,
:math:`c = (y - zD)D^\top`, which is 0 on S. The squared error grows by

.. math:: \|hD\|^2 - 2\langle c, h\rangle \ge (1 - \delta)(a^2 + b^2) - 2 \sqrt m\, \|c\|_\infty b
          \ge (1 - \delta) a^2 - \frac{m \|c\|_\infty^2}{1 - \delta},

where a and b are the norms of h on :math:`S \setminus S'` and :math:`S' \setminus S`. As :math:`a \ge \sqrt m
\min|z_i|`, this is positive. On S itself the least-squares code is unique. ∎

**References.** Tropp (2004), Greed is good, and (2006), Just relax, IEEE Trans. Inf. Theory 50 and 52; Donoho and Elad
(2003), Optimally sparse representation in general dictionaries, PNAS 100; Candès (2008), The restricted isometry
property and its implications for compressed sensing, C. R. Acad. Sci. 346; Mairal (2010), Sparse coding for machine
learning, appendix D.
"""

from itertools import combinations

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import hadamard

from proxsae import solve
from proxsae.regularizers import L1, Cardinality, NonNegative
from proxsae.solvers import Problem
from proxsae.solvers.certificates import duality_gap

rng = np.random.default_rng(0)

# %%
# (i) The gap bounds the true error, and a solver of another kind agrees
# ----------------------------------------------------------------------
# Along the iterations of ISTA; the reference is an interior-point method, cvxpy's Clarabel.

D, y = rng.normal(size=(60, 30)), rng.normal(size=(1, 30))
D /= np.linalg.norm(D, axis=1, keepdims=True)
paths = {}
for R in (0.3 * L1(), 0.3 * L1() + NonNegative()):
    z = cp.Variable(60, nonneg=R.is_nonnegative)
    minimum = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y[0] - z @ D) + 0.3 * cp.norm1(z))).solve(solver="CLARABEL")
    problem = Problem(y, D, R, 1 / np.linalg.eigvalsh(D @ D.T)[-1])
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
# (ii) Certified lasso codes are global
# -------------------------------------
# Unit vectors and a Hadamard basis, :math:`\mu = 1/4`; data of two atoms plus noise. The lasso is solved on the two
# atoms alone, and on all 32 as the referee.

D, S, R = np.vstack([np.eye(16), hadamard(16) / 4]), [3, 20], 0.4 * L1()
G = D @ D.T
others, mu = np.setdiff1d(np.arange(32), S), np.abs(G - np.eye(32)).max()
exact = np.abs(np.linalg.pinv(D[S]).T @ D[others].T).sum(axis=0)
cheap = 2 * mu / (1 - mu)
assert (exact <= cheap).all()
noises, recovery = np.linspace(0, 0.5, 11), []
for noise in noises:
    Y = rng.choice([-1.0, 1.0], size=(500, 2)) @ D[S] + noise * rng.normal(size=(500, 16))
    few, all_atoms = (solve(Y, atoms, R, tol=1e-10, max_iter=20_000) for atoms in (D[S], D))
    is_optimal = few.objective - all_atoms.objective < 1e-8
    outside = np.abs((Y - Y @ np.linalg.pinv(D[S]) @ D[S]) @ D[others].T)
    by_erc, by_coherence = ((outside < 0.4 * (1 - M)).all(axis=1) for M in (exact, cheap))
    assert (by_coherence <= by_erc).all()
    assert (by_erc <= is_optimal).all()
    assert (all_atoms.codes[by_erc][:, others] == 0).all()
    recovery.append((is_optimal.mean(), by_erc.mean(), by_coherence.mean()))
assert recovery[0] == (1.0, 1.0, 1.0)

# %%
# (iii) Certified codes are the best of all supports
# --------------------------------------------------
# The same atoms, any two of them, and noise. Candidates come from exchanges of one atom, and a refit. Every
# certificate is confirmed by the 496 supports; the isometry constant, itself computed by enumeration, certifies more
# than coherence, and some optimal codes have no certificate.

blocks = np.array([G[np.ix_(S, S)] for S in combinations(range(32), 4)])
delta = np.abs(np.linalg.eigvalsh(blocks) - 1).max()
print(f"delta_4 = {delta:.3f}, (2k - 1) mu = {3 * mu:.3f}")
assert delta <= 3 * mu

supports = [list(S) for S in combinations(range(32), 2)]
projections = np.array([np.linalg.pinv(D[S]) @ D[S] for S in supports])
shares = []
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

figure, axes = plt.subplots(1, 3, figsize=(10, 3.5), layout="constrained")
for (R, (errors, gaps)), colour in zip(paths.items(), ("#0072b2", "#d55e00"), strict=True):
    axes[0].semilogy(gaps, color=colour, label=f"gap, {R}")
    axes[0].semilogy(np.maximum(errors, 1e-9), ":", color=colour, label="true distance")
axes[0].set(xlabel="proximal steps", title="(i) F(z) - min F", ylim=(1e-7, 3e4))
axes[0].legend(fontsize=7, loc="upper right")
for axis, curves, title in ((axes[1], recovery, "(ii) lasso"), (axes[2], shares, "(iii) cardinality, k = 2")):
    stronger = "exact recovery condition" if axis is axes[1] else "restricted isometry"
    for curve, label in zip(np.transpose(curves), ("optimal", stronger, "coherence"), strict=True):
        axis.plot(noises, curve, "o-", ms=4, label=label)
    axis.set(xlabel="noise", title=title)
    axis.legend(fontsize=8)
axes[1].set_ylabel("share of codes optimal, and proved so")
plt.show()
