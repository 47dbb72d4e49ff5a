r"""
5. Which activations are proxes, and of which R
===============================================

**Theorem** (Moreau; Gribonval and Nikolova). **(i)** *A function f of one variable is the prox of some R if and only
if it is non-decreasing. With* :math:`\varphi(u) = \int_0^u f` *one such R is*

.. math:: R = \varphi^* - \tfrac12 (\cdot)^2, \qquad R(f(u)) = u f(u) - \varphi(u) - \tfrac12 f(u)^2 .

**(ii)** *Every other regularizer with this prox equals R, up to a constant, on the range of f, and is at least R
elsewhere: in the gap of a jump it is not determined.*

**(iii)** *This R is convex if and only if f is also non-expansive,* :math:`|f(u) - f(v)| \le |u - v|`.

**(iv)** *A continuously differentiable map of* :math:`\mathbb{R}^p` *to itself is a prox if and only if its Jacobian is
symmetric and positive semidefinite everywhere.*

**Proof.** (i) Page 2 shows that a prox does not decrease. Conversely :math:`\varphi` is convex and :math:`f(u)` a
subgradient of it, so :math:`z = f(u)` minimises :math:`\varphi^*(z) - uz = \frac12(z - u)^2 + R(z) - \frac12u^2`; and
:math:`\varphi(u) + \varphi^*(f(u)) = u f(u)`. (ii) For a regularizer R' with prox f and envelope :math:`e(u) = \min_z
\frac12(z-u)^2 + R'(z)`, the function :math:`\frac12u^2 - e(u) = \sup_z [zu - \frac12z^2 - R'(z)]` is convex with
subgradient f(u), hence :math:`\varphi` up to a constant. So e is known; it gives R' on the range, and :math:`R'(z)
\ge \sup_u [e(u) - \frac12(z-u)^2] = R(z)` up to the constant. (iii) f is 1-Lipschitz iff :math:`\varphi^* -
\frac12(\cdot)^2` is convex. (iv) By the argument of (ii) a prox is a subgradient of the convex
:math:`\varphi = \frac12\|\cdot\|^2 - e`, and its gradient if continuous: the Jacobian is the Hessian. Conversely a
symmetric Jacobian makes the map a gradient (Poincaré), a semidefinite one that of a convex :math:`\varphi`, and the
argument of (i) applies. ∎

:func:`~proxsae.verification.regularizer_of` decides (i) and (iii) and computes R;
:func:`~proxsae.verification.check_map` tests (iv).

**References.** Moreau (1965), Proximité et dualité dans un espace hilbertien, Bull. Soc. Math. France 93; Combettes and
Pesquet (2020), Deep neural network structures solving variational inequalities, Set-Valued Var. Anal. 28; Gribonval and
Nikolova (2020), A characterization of proximity operators, J. Math. Imaging Vis. 62.
"""

import matplotlib.pyplot as plt
import numpy as np
import sympy
from scipy.special import expit, log1p, ndtr, softmax, xlogy

from proxsae.regularizers import CEL0, L0, Cardinality, Simplex
from proxsae.verification import check_map, regularizer_of

# %%
# From the activation to R, and back
# ----------------------------------
# Each recovered R is compared with the closed form, and its prox, which is computed from R alone, with the
# activation.

a = 0.2
activations = {
    "ReLU": (lambda u: np.maximum(u, 0), lambda z: 0 * z),
    "leaky ReLU": (lambda u: np.where(u < 0, a * u, u), lambda z: np.where(z < 0, (1 / a - 1) * z * z / 2, 0)),
    "ELU": (
        lambda u: np.where(u < 0, np.expm1(np.minimum(u, 0)), u),
        lambda z: np.where(z < 0, xlogy(1 + np.minimum(z, 0), 1 + np.minimum(z, 0)) - z - z * z / 2, 0),
    ),
    "softsign": (lambda u: u / (1 + np.abs(u)), lambda z: -log1p(-np.abs(z)) - np.abs(z) - z * z / 2),
    "tanh": (np.tanh, lambda z: z * np.arctanh(z) + log1p(-z * z) / 2 - z * z / 2),
    "sigmoid": (expit, lambda z: xlogy(z, z) + xlogy(1 - z, 1 - z) - z * z / 2),
    "hard threshold": (lambda u: np.where(np.abs(u) > 1, u, 0), lambda z: CEL0(1.0, 0.5).penalties(z)),
    "softplus": (lambda u: np.logaddexp(u, 0), None),
}
u, found = np.linspace(-4, 4, 161) + 1e-3, {}
for name, (f, R_of) in activations.items():
    found[name] = result = regularizer_of(f, -5, 5)
    assert result.is_prox
    assert result.is_convex == (name != "hard threshold")
    np.testing.assert_allclose(result.regularizer.prox(u[:, None])[:, 0], f(u), atol=1e-4)
    if R_of is not None:
        inside = slice(1, -1)
        recovered, exact = result.values[inside], R_of(result.z[inside])
        np.testing.assert_allclose(recovered - recovered.min(), exact - exact.min(), atol=1e-5)
    print(f"{name:15s} is {result}")

# %%
# In symbols, where sympy can invert and integrate.

x, z = sympy.Symbol("x", real=True), sympy.Symbol("z", real=True)
recovered = regularizer_of(sympy.tanh(x)).expression
print("tanh:", recovered)
assert sympy.simplify(sympy.diff(recovered, z) - (sympy.atanh(z) - z)) == 0

# %%
# Activations without any R, and two points that show it.

not_proxes = {
    "GELU": lambda u: u * ndtr(u),
    "SiLU": lambda u: u * expit(u),
    "sine": np.sin,
}
for name, f in not_proxes.items():
    result = regularizer_of(f, -5, 5)
    print(f"{name:5s} is {result}")
    assert not result.is_prox
    (u1, f1), (u2, f2) = result.witness
    assert (u2 - u1) * (f2 - f1) < 0

# %%
# Two regularizers, one activation
# --------------------------------
# The hard threshold at step 1 is the prox of L0 and of CEL0, which differ in the gap. At another step they part.

u = np.linspace(-3, 3, 601)
assert (CEL0(1.0, 0.5).prox(u) == (0.5 * L0()).prox(u)).all()
assert (CEL0(1.0, 0.5).penalties(u) <= (0.5 * L0()).penalties(u) + 1e-15).all()
assert not np.allclose(CEL0(1.0, 0.5).prox(u, 0.5), (0.5 * L0()).prox(u, 0.5))

# %%
# Maps of whole codes
# -------------------
# Softmax, sparsemax, AbsTopK and normalisation to the sphere meet the conditions (the last three where they are
# differentiable, and they are monotone throughout); TopK without ReLU, a rotation and a gated linear unit do not.


def signed_top_2(u):
    """Keep the two largest entries, whatever their sign."""
    return np.where(u >= np.sort(u)[-2], u, 0)


maps = {
    "softmax": (softmax, True),
    "sparsemax": (Simplex().prox, True),
    "AbsTopK": (Cardinality(2).prox, True),
    "normalisation": (lambda u: u / np.linalg.norm(u), True),
    "TopK without ReLU": (signed_top_2, False),
    "rotation": (lambda u: np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ u, False),
    "gated linear unit": (lambda u: np.concatenate([u[:2] * expit(u[2:]), u[2:]]), False),
}
for name, (function, expected) in maps.items():
    result = check_map(function, 4)
    print(f"{name:18s} {'no violation found' if result.is_prox else f'not {result.violation}'}")
    assert result.is_prox == expected

# %%
# Activations and their R
# -----------------------
# The recovered R in orange, its closed form dotted.

figure, axes = plt.subplots(2, 4, figsize=(10, 5), sharex=True, sharey=True, layout="constrained")
u = np.linspace(-3, 3, 601)
for (name, (f, R_of)), axis in zip(activations.items(), axes.flat, strict=True):
    result = found[name]
    jumps = np.abs(np.diff(f(u), append=f(u[-1:]))) > 0.5
    axis.plot(u, np.where(jumps, np.nan, f(u)), color="#0072b2", label="activation: z against u")
    axis.plot(result.z, result.values, color="#d55e00", lw=2.5, label="R against z")
    if R_of is not None:
        exact = R_of(result.z[1:-1])
        axis.plot(result.z[1:-1], exact - exact.min(), ":", color="black", lw=1, label="closed form")
    axis.set(title=name, xlim=(-3, 3), ylim=(-1.6, 3))
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()
