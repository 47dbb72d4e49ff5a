"""The best codes with a given support, or with any of at most k atoms, by looking at every pattern of signs.

For R = lam |z| + ridge z^2 / 2, perhaps on z >= 0: where the signs are known F is quadratic, and its minimum is a
linear system. Nothing is shared with the package.
"""

import itertools

import numpy as np

# lam, ridge, whether z >= 0
QUADRATIC = {
    "Zero": (0.0, 0.0, False),
    "NonNegative": (0.0, 0.0, True),
    "0.3*L1": (0.3, 0.0, False),
    "0.3*L1 + NonNegative": (0.3, 0.0, True),
    "0.5*SquaredL2": (0.0, 0.5, False),
}


def best_on(X, D, text, supports):
    """Return the least F of each row of X, and the codes, over all supports inside of the given ones."""
    lam, ridge, nonnegative = QUADRATIC[text]
    C = X @ D.T
    best, codes = 0.5 * (X * X).sum(1), np.zeros(C.shape)
    inside = {T for S in supports for m in range(1, len(S) + 1) for T in itertools.combinations(sorted(S), m)}
    for T in map(list, sorted(inside)):
        M = D[T] @ D[T].T + ridge * np.eye(len(T))
        s = 1.0 / np.sqrt(np.where(M.diagonal() > 0, M.diagonal(), 1.0))
        inverse = s[:, None] * np.linalg.pinv(s[:, None] * M * s, rcond=1e-11, hermitian=True) * s
        signs = itertools.product([1, -1], repeat=len(T)) if lam and not nonnegative else [(1,) * len(T)]
        for sign in signs:
            Z = (C[:, T] - lam * np.array(sign)) @ inverse
            if lam or nonnegative:
                Z[(Z * sign < 0).any(1)] = 0.0
            F = 0.5 * ((X - Z @ D[T]) ** 2).sum(1) + lam * abs(Z).sum(1) + 0.5 * ridge * (Z * Z).sum(1)
            better = F < best
            best[better] = F[better]
            codes[better] = 0.0
            codes[np.ix_(better, T)] = Z[better]
    return best, codes


def best_with(X, D, text, k):
    """Return the least F of each row of X, and the codes, with at most k atoms."""
    return best_on(X, D, text, itertools.combinations(range(len(D)), min(k, len(D))))


def best_exchange(x, D, z, text, k):
    """Return the least F after one atom of the support is exchanged, or one added where fewer than k are in use."""
    used = list(np.flatnonzero(z))
    rest = [*used, None] if len(used) < k else used
    others = [j for j in range(len(D)) if j not in used]
    tries = [[*(i for i in used if i != a), j] for a in rest for j in others]
    return best_on(x[None], D, text, tries)[0][0]
