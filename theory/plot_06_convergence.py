r"""
6. How fast ISTA, FISTA and hard thresholding converge
======================================================

Let L be the largest eigenvalue of :math:`G = D D^\top`, and t = 1/L unless said otherwise.

**Theorem.** *Let R be convex. For every point z, in particular a minimiser,*

.. math:: \text{ISTA: } F(z_n) - F(z) \le \frac{L \|z_0 - z\|^2}{2 n}, \qquad
          \text{FISTA: } F(z_n) - F(z) \le \frac{2 L \|z_0 - z\|^2}{(n + 1)^2} .

*If the smallest eigenvalue* :math:`\mu` *of G is positive, ISTA contracts towards the minimiser:* :math:`\|z_n -
z^*\| \le (1 - \mu/L)^n \|z_0 - z^*\|`.

*For every R, convex or not, and t < 1/L, no step raises F and the steps become small:*

.. math:: \sum_n \|z_{n+1} - z_n\|^2 \le \frac{2 (F(z_0) - \inf F)}{1/t - L} .

*Iterative hard thresholding (* :math:`R = \iota\{\|z\|_0 \le k\}`, *AbsTopK, t = 1) on* :math:`y = z^* D` *with*
:math:`\|z^*\|_0 \le k` *contracts towards the planted code:* :math:`\|z_{n+1} - z^*\| \le 2 \delta_{3k} \|z_n -
z^*\|`, *where* :math:`\delta_{s} = \max_{|\Omega| = s} \|G_{\Omega\Omega} - I\|`, *which for unit-norm atoms of
coherence* :math:`\mu_1 = \max_{i \ne j} |G_{ij}|` *is at most* :math:`(s - 1) \mu_1`.

**Proof.** One inequality gives both rates: the step from p to :math:`p^+` has, for every z,

.. math:: (\ast) \quad F(p^+) - F(z) \le \tfrac L2 \left(\|p - z\|^2 - \|p^+ - z\|^2\right) .

For :math:`p^+` minimises :math:`f(p) + \langle \nabla f(p), \cdot - p\rangle + \frac L2\|\cdot - p\|^2 + R`, which is
L-strongly convex, at least :math:`F(p^+)` at its minimum, and at most :math:`F(z) + \frac L2\|p - z\|^2` at z. *ISTA:*
put :math:`p = z_m` and add over :math:`m < n`; the right side telescopes, and F falls. *FISTA* steps from :math:`p_n =
z_n + \frac{\theta_n - 1}{\theta_{n+1}} (z_n - z_{n-1})` with :math:`\theta_1 = 1` and :math:`\theta_{n+1}^2 -
\theta_{n+1} = \theta_n^2`. Take :math:`(\ast)` at :math:`p_n` with :math:`(1 - \frac1\theta) z_n + \frac1\theta z` in
place of z, :math:`\theta = \theta_{n+1}`, use that F is convex, and multiply by :math:`\theta^2`: with :math:`v_n =
F(z_n) - F(z)` and :math:`w_n = \theta_n z_n - (\theta_n - 1) z_{n-1} - z`,

.. math:: \theta_{n+1}^2 v_{n+1} - \theta_n^2 v_n \le \tfrac L2 \left(\|w_n\|^2 - \|w_{n+1}\|^2\right) .

The first step gives :math:`v_1 \le \frac L2 (\|z_0 - z\|^2 - \|w_1\|^2)`; add up, and :math:`\theta_n \ge (n + 1)/2`.
*Contraction:* :math:`z_n - z^*` is multiplied by :math:`I - tG`, of norm :math:`1 - \mu/L`, and the prox of a convex R
does not expand. *Descent:* :math:`z_{n+1}` minimises the model :math:`f(z_n) + \langle \nabla f(z_n), z - z_n\rangle +
\frac{1}{2t}\|z - z_n\|^2 + R(z)`, whose value at :math:`z_n` is :math:`F(z_n)`; F lies below it by
:math:`\frac12(\frac1t - L)\|z - z_n\|^2` at least. Sum up. *Hard thresholding:* with :math:`w = z_n + (y - z_n D)
D^\top` and :math:`\Omega` the union of the supports of :math:`z_{n+1}, z_n, z^*`, :math:`z_{n+1}` is the best k-sparse
approximation of w, so :math:`\|z_{n+1} - z^*\| \le \|z_{n+1} - w_\Omega\| + \|w_\Omega - z^*\| \le 2\|w_\Omega -
z^*\|`, and :math:`w_\Omega - z^* = (z_n - z^*)_\Omega (I - G_{\Omega\Omega})`. The bound on :math:`\delta_s` is
Gershgorin's. ∎

The library's FISTA restarts its momentum where it points uphill. Its state after a restart is that of a new run, so
the bound holds with n counted, and the distance measured, from the last restart.

**References.** Beck and Teboulle (2009), A fast iterative shrinkage-thresholding algorithm, SIAM J. Imaging Sci. 2;
O'Donoghue and Candès (2015), Adaptive restart for accelerated gradient schemes, Found. Comput. Math. 15; Blumensath and
Davies (2009), Iterative hard thresholding for compressed sensing, Appl. Comput. Harmon. Anal. 27; Attouch, Bolte and
Svaiter (2013), Convergence of descent methods for semi-algebraic and tame problems, Math. Program. 137.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import hadamard

from proxsae import solve
from proxsae.regularizers import L0, L1, MCP, Cardinality, NonNegative
from proxsae.solvers import Problem
from proxsae.solvers.methods import ALGORITHMS

rng = np.random.default_rng(0)


def objective(problem, Z):
    """Return F(z), a row each."""
    return 0.5 * ((problem.targets - Z @ problem.dictionary) ** 2).sum(-1) + problem.regularizer.value(Z)


def states(problem, name, n_steps):
    """Return the states of an algorithm from zero, the first one included."""
    algorithm = ALGORITHMS[name]
    path = [algorithm.start(problem, np.zeros((len(problem.targets), len(problem.dictionary))))]
    for _ in range(n_steps):
        path.append(algorithm.update(problem, path[-1]))
    return path


# %%
# The rates for convex R
# ----------------------
# Forty-five atoms in thirty dimensions: F is not strictly convex, and the momentum restarts. Each sample is checked.

D = rng.normal(size=(45, 30))
D /= np.linalg.norm(D, axis=1, keepdims=True)
L, Y, n = np.linalg.eigvalsh(D @ D.T)[-1], rng.normal(size=(20, 30)), np.arange(1, 401)
for R in (0.05 * L1(), 0.05 * L1() + NonNegative()):
    problem = Problem(Y, D, R, 1 / L)
    best = solve(Y, D, R, tol=1e-13, max_iter=100_000)
    distance = (best.codes**2).sum(-1)

    ista = [objective(problem, state.codes) - best.objective for state in states(problem, "ista", 400)[1:]]
    ista_bound = L * distance / (2 * n[:, None])
    assert (ista <= ista_bound).all()

    start, since, fista, fista_bound, restarts = np.zeros_like(best.codes), np.zeros(20), [], [], 0
    for state in states(problem, "fista", 400)[1:]:
        since += 1
        fista_bound.append(2 * L * ((start - best.codes) ** 2).sum(-1) / (since + 1) ** 2)
        fista.append(objective(problem, state.codes) - best.objective)
        restarted = state.momentum[:, 0] == 1
        start[restarted], since[restarted] = state.codes[restarted], 0
        restarts += restarted.sum()
    assert (np.array(fista) <= np.array(fista_bound) + 1e-12).all()
    assert restarts > 20
    print(f"{R!s:26s} ISTA {ista[-1].max():.1e}, bound {ista_bound[-1].max():.1e};", end=" ")
    print(f"FISTA after 100 steps {fista[99].max():.1e}, bound {fista_bound[99].max():.1e}, {restarts} restarts")

# %%
# The linear rate where atoms are independent
# -------------------------------------------

D_free = D[:15]
mu, L_free = np.linalg.eigvalsh(D_free @ D_free.T)[[0, -1]]
problem = Problem(Y, D_free, 0.05 * L1(), 1 / L_free)
target = states(problem, "ista", 3000)[-1].codes
distances = np.array([np.linalg.norm(state.codes - target, axis=1) for state in states(problem, "ista", 150)])
bounds = (1 - mu / L_free) ** np.arange(151)[:, None] * distances[0]
assert (distances <= bounds + 1e-12).all()
measured = (distances[150] / distances[100]).max() ** (1 / 50)
print(f"contraction a step: {measured:.4f} for the slowest of 20 samples, bound {1 - mu / L_free:.4f}")

# %%
# Every R: descent
# ----------------

for R in (0.05 * L1(), 0.1 * L0(), 0.3 * MCP(0.5) + NonNegative(), Cardinality(4)):
    t = 0.9 / L
    path = [state.codes for state in states(Problem(Y, D, R, t), "ista", 300)]
    F = np.array([objective(Problem(Y, D, R, t), Z) for Z in path])
    steps = np.array([((after - before) ** 2).sum(-1) for before, after in pairwise(path)])
    assert (np.diff(F, axis=0) <= 1e-12).all()
    assert (steps.sum(0) <= 2 * (F[0] - F[-1]) / (1 / t - L) + 1e-12).all()

# %%
# Hard thresholding with a restricted isometry
# --------------------------------------------
# The unit vectors and a Hadamard basis: 512 atoms in 256 dimensions, coherence 1/16. For k = 2 the bound is
# :math:`2\delta_6 \le 2 \cdot 5/16 = 0.625`. The pure step takes t = 1; `solve` insists on t <= 1/L, where F cannot
# rise.

D_pair = np.vstack([np.eye(256), hadamard(256) / 16])
coherence = np.abs(D_pair @ D_pair.T - np.eye(512)).max()
planted = (rng.random((200, 512)).argsort(axis=1) < 2) * rng.normal(size=(200, 512))
problem = Problem(planted @ D_pair, D_pair, Cardinality(2), 1.0)
errors = np.array([np.linalg.norm(state.codes - planted, axis=1) for state in states(problem, "ista", 40)])
rate = 2 * 5 * coherence
assert (errors[1:] <= rate * errors[:-1] + 1e-14).all()
assert errors[-1].max() < 1e-7
is_large = errors[:-1] > 1e-10
measured = (errors[1:][is_large] / errors[:-1][is_large]).max()
print(f"contraction a step: {measured:.3f} for the slowest of 200 samples, bound {rate:.3f}")

# %%
# Measured and bound
# ------------------
# Solid what is measured, dotted the bound. Left: one sample, under L1 and z >= 0. Middle and right: the largest error
# of all samples, relative to the start.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for curve, bound, colour, name in ((ista, ista_bound, "#0072b2", "ISTA"), (fista, fista_bound, "#d55e00", "FISTA")):
    axes[0].plot(n, np.maximum(np.array(curve)[:, 0], 1e-16), color=colour, label=name)
    axes[0].plot(n, np.array(bound)[:, 0], ":", color=colour)
axes[0].set(xscale="log", yscale="log", title="$F(z_n) - F^*$, convex R", ylim=(1e-12, 1e3))
axes[0].legend(loc="lower left")
axes[1].semilogy((distances / distances[0]).max(1), color="#0072b2")
axes[1].semilogy((1 - mu / L_free) ** np.arange(151), ":", color="#0072b2")
axes[1].set(title=r"$\|z_n - z^*\|$, ISTA, independent atoms")
axes[2].semilogy(np.maximum((errors / errors[0]).max(1), 1e-16), color="#009e73")
axes[2].semilogy(rate ** np.arange(41), ":", color="#009e73")
axes[2].set(title=r"$\|z_n - z^*\|$, hard thresholding", ylim=(1e-12, 3))
for axis in axes:
    axis.set_xlabel("steps n")
plt.show()
