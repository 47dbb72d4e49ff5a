r"""
4. AbsTopK with P atoms is TopK with 2P tied atoms
==================================================

**Theorem.** *Let D have P atoms and let* :math:`\pm D` *be the 2P atoms* :math:`[D; -D]`.

**(i)** *Activations.* *If the* :math:`|u_i|` *are distinct and* :math:`(z^+, z^-)` *is TopK of* :math:`[u, -u]`,
*then* :math:`z^+ - z^-` *is AbsTopK of u, and both reconstruct the same:* :math:`(z^+, z^-)\,[D; -D] = (z^+ - z^-)
D`.

**(ii)** *Optimal codes.* *For every y, with the same k,*

.. math:: \min_{z \ge 0,\ \|z\|_0 \le k} \|y - z\,[D; -D]\|^2 \;=\; \min_{\|z\|_0 \le k} \|y - z D\|^2 \;\le\;
          \min_{z \ge 0,\ \|z\|_0 \le k} \|y - z D\|^2 .

**(iii)** *Consequently, for the best dictionary of each kind, the error of TopK with 2P free atoms is at most that of
AbsTopK with P, which is at most that of TopK with P.*

**Proof.** (i) Of :math:`u_i` and :math:`-u_i` at most one is positive, and it is :math:`|u_i|`: the positive entries
of :math:`[u, -u]` and their order are those of :math:`|u|`. (ii) Split z into its positive and negative parts: the
support keeps its size and the product its value; conversely :math:`(z^+, z^-) \mapsto z^+ - z^-` does not enlarge the
support. The inequality drops a constraint. (iii) The dictionaries [D; -D] are some of those with 2P atoms. ∎

So a comparison of AbsTopK with P atoms needs two baselines: TopK with P atoms (as many parameters, half the
directions) and TopK with 2P (as many directions, twice the parameters). AbsTopK lies between them for optimal codes;
a claim that it beats both is a claim about training.

**References.** Zhu, Khalili and Zhu (2025), AbsTopK: Rethinking sparse autoencoders for bidirectional features,
arXiv:2510.00404; Gao et al. (2024), Scaling and evaluating sparse autoencoders, arXiv:2406.04093.
"""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import nnls

from proxsae import ProxSAE
from proxsae.regularizers import Cardinality, NonNegative

rng = np.random.default_rng(0)


def abs_top(k):
    """Return the regularizer of AbsTopK."""
    return Cardinality(k)


def top(k):
    """Return the regularizer of TopK."""
    return NonNegative() + Cardinality(k)


# %%
# (i) The activations agree, entry by entry
# -----------------------------------------

U, D = rng.normal(size=(1000, 30)), rng.normal(size=(30, 10))
for k in (0, 1, 5, 30):
    halves = top(k).prox(np.hstack([U, -U]))
    folded = halves[:, :30] - halves[:, 30:]
    assert (folded == abs_top(k).prox(U)).all()
    np.testing.assert_allclose(halves @ np.vstack([D, -D]), folded @ D, atol=1e-13)

# %%
# Distinct moduli are needed: in a tie the lowest index wins, and the copies have other indices. The u with ties are
# a null set.

u = np.array([-1.0, 1.0])
print("AbsTopK:", abs_top(1).prox(u), " TopK of [u, -u]:", top(1).prox(np.concatenate([u, -u])))
assert abs_top(1).prox(u).tolist() == [-1, 0]
assert top(1).prox(np.concatenate([u, -u])).tolist() == [0, 1, 0, 0]

# %%
# (ii) Optimal codes, by enumeration
# ----------------------------------
# Least squares and non-negative least squares on every support of two atoms.


def best_error(y, D, nonnegative):
    """Return the least squared error of codes with two non-zeros."""
    errors = []
    for support in combinations(range(len(D)), 2):
        A = D[list(support)].T
        errors.append(nnls(A, y)[1] ** 2 if nonnegative else np.sum((y - A @ np.linalg.lstsq(A, y)[0]) ** 2))
    return min(errors)


for _ in range(20):
    D, y = rng.normal(size=(7, 4)), rng.normal(size=4)
    signed, halved = best_error(y, D, False), best_error(y, D, True)
    tied = best_error(y, np.vstack([D, -D]), True)
    np.testing.assert_allclose(tied, signed, rtol=1e-9, atol=1e-12)
    assert signed <= halved + 1e-12

# %%
# What z >= 0 loses, and what it fragments
# ----------------------------------------
# Sixteen orthonormal concepts, three active in a sample, a share q of them in the negative direction. With the true
# atoms one step is exact (page 1), and TopK with P atoms loses the energy of the negative codes: its error is q.


def concepts(n, q):
    """Return codes with three non-zeros of modulus 1 to 2, negative with probability q."""
    Z = (rng.random((n, 16)).argsort(axis=1) < 3) * rng.uniform(1, 2, size=(n, 16))
    return Z * np.where(rng.random(Z.shape) < q, -1, 1)


true_atoms = np.linalg.qr(rng.normal(size=(16, 16)))[0]
shares, errors = np.linspace(0, 1, 11), {"AbsTopK, P": [], "TopK, P": [], "TopK, 2P tied": []}
for q in shares:
    X = concepts(4000, q) @ true_atoms
    for name, R, D in (
        ("AbsTopK, P", abs_top(3), true_atoms),
        ("TopK, P", top(3), true_atoms),
        ("TopK, 2P tied", top(3), np.vstack([true_atoms, -true_atoms])),
    ):
        errors[name].append(((X - R.prox(X @ D.T) @ D) ** 2).sum() / (X**2).sum())
np.testing.assert_allclose(errors["AbsTopK, P"], 0, atol=1e-20)
np.testing.assert_allclose(errors["TopK, 2P tied"], 0, atol=1e-20)
np.testing.assert_allclose(errors["TopK, P"], shares, atol=0.02)

# %%
# Now train, at q = 1/2, without the true atoms. AbsTopK finds each concept once. TopK with 2P finds it twice, as two
# features that nothing relates but their antipodal atoms: this is the fragmentation. TopK with P has not enough
# half-lines. That AbsTopK ends with a smaller error than TopK with 2P is an effect of training: (iii) orders the models
# the other way round.

X = (concepts(5000, 0.5) @ true_atoms).astype(np.float32)
trained = {}
for name, R, p in (("AbsTopK, P", abs_top(3), 16), ("TopK, P", top(3), 16), ("TopK, 2P", top(3), 32)):
    sae = ProxSAE(R, p, n_steps=150, batch_size=256, learning_rate=2e-2, device="cpu", random_state=0).fit(X)
    cosines = sae.components_ @ sae.components_.T
    found = (np.abs(sae.components_ @ true_atoms.T).max(0) > 0.95).sum()
    trained[name] = 1 - sae.score(X), cosines
    antipodal = (cosines < -0.8).any(axis=1).sum()
    print(f"{name:11s} FVU {trained[name][0]:.4f}, concepts found {found:2d} of 16, atoms with an antipode {antipodal}")
assert trained["AbsTopK, P"][0] < 0.01
assert trained["TopK, 2P"][0] < 0.1
assert trained["TopK, P"][0] > 0.3
assert (trained["TopK, 2P"][1] < -0.8).any(1).sum() >= 24
assert not (trained["AbsTopK, P"][1] < -0.8).any()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for (name, curve), style in zip(errors.items(), ("o-", "s-", "x--"), strict=True):
    left.plot(shares, curve, style, label=name)
left.set(xlabel="share q of negative codes", ylabel="relative error", title="true atoms")
left.legend()
for name, (fvu, cosines) in trained.items():
    lowest = np.sort(cosines.min(axis=1))
    right.plot(np.linspace(0, 1, len(lowest)), lowest, "o-", ms=3, label=f"{name}: FVU {fvu:.3f}")
right.set(xlabel="share of the atoms", ylabel="smallest cosine with another atom", ylim=(-1.05, 0.6))
right.set_title("trained at q = 1/2")
right.legend(loc="upper left")
plt.show()
