r"""
2. The zoo: which activation is which regularizer
=================================================

**Theorem.** *Each activation below is* :math:`\mathrm{prox}_R` *for the R beside it, at step 1.*

.. csv-table::
   :header-rows: 1
   :delim: &

   activation & R(z) & published as
   ReLU with a shift & :math:`\lambda \|z\|_1 + \iota\{z \ge 0\}` & SAE
   JumpReLU & :math:`\frac{\theta^2}{2} \|z\|_0 + \iota\{z \ge 0\}` & JumpReLU SAE
   JumpReLU, two-sided & :math:`\frac{\theta_+^2}{2} \#\{z_i > 0\} + \frac{\theta_-^2}{2} \#\{z_i < 0\}`
   soft, hard threshold & :math:`\lambda \|z\|_1`; :math:`\frac{\theta^2}{2} \|z\|_0` & LISTA
   gate and magnitude & :math:`\frac{(\theta - s)_+^2}{2} \|z\|_0 + s \sum_i z_i + \iota\{z \ge 0\}` & gated SAE, tied
   half threshold & :math:`\lambda \sum_i |z_i|^{1/2}` & L1/2 thresholding
   elastic net & :math:`\lambda \|z\|_1 + \frac a2 \|z\|_2^2`
   TopK & :math:`\iota\{\|z\|_0 \le k,\ z \ge 0\}` & TopK SAE
   AbsTopK & :math:`\iota\{\|z\|_0 \le k\}` & AbsTopK SAE
   BatchTopK & :math:`\iota\{\|Z\|_0 \le k n,\ Z \ge 0\}`, n rows & BatchTopK, Matryoshka SAE
   at most m rows a feature & :math:`\iota\{\|Z_{\cdot j}\|_0 \le m \text{ for all } j,\ Z \ge 0\}` & feature-choice SAE
   group top-s & :math:`\iota\{\text{at most s groups} \ne 0,\ z \ge 0\}`
   sparsemax & :math:`\iota\{z \ge 0,\ \sum_i z_i = 1\}` & SpaDE

**Lemma (why others are not).** *Every prox is monotone:* :math:`\langle z - z', u - u' \rangle \ge 0` *for* :math:`z
= \mathrm{prox}_R(u),\ z' = \mathrm{prox}_R(u')`, *whatever R. In particular a scalar activation that decreases
somewhere, such as GELU, SiLU or Mish, is the prox of no R.*

**Proof.** A separable R is a scalar problem, which `prove` decides below for all u, z, t and parameters. The
selections are the gain rule of page 3, over coordinates, a batch, the columns of a batch, or groups. Sparsemax is by
definition the projection onto the simplex. *Lemma:* z is at least as good as z' at u, and z' at least as good as z at
u': :math:`\frac12\|z-u\|^2 + R(z) \le \frac12\|z'-u\|^2 + R(z')` and the same with primes exchanged. Add them; R and
the squares cancel, and :math:`-\langle z, u\rangle - \langle z', u'\rangle \le -\langle z', u\rangle - \langle z,
u'\rangle` is left. ∎

**References.** Gao et al. (2024), Scaling and evaluating sparse autoencoders; Rajamanoharan et al. (2024), Improving
dictionary learning with gated sparse autoencoders, and Jumping ahead (JumpReLU); Bussmann, Leask and Nanda (2024),
BatchTopK sparse autoencoders; Ayonrinde (2024), Adaptive sparse allocation with mutual choice and feature choice sparse
autoencoders; Zhu, Khalili and Zhu (2025), AbsTopK; Hindupur et al. (2025), Projecting assumptions (SpaDE); Xu et al.
(2012), L1/2 regularization, IEEE TNNLS 23.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import brentq
from torch.nn import functional

from proxsae import prove, verify
from proxsae.regularizers import Cardinality, Lq, NonNegative, get
from proxsae.verification import check_map

torch.manual_seed(0)
U = torch.randn(64, 12, dtype=torch.float64) * 2


def top_k(v, k):
    """Return v with all but its k largest entries set to zero, the code of a TopK SAE."""
    values, indices = torch.topk(v, k, dim=-1)
    return torch.zeros_like(v).scatter(-1, indices, values)


def half_threshold(v, lam):
    """Return the half threshold of Xu et al. (2012), who minimise (z - v)^2 + lam abs(z)^(1/2), without the half."""
    angle = torch.acos((lam / 8 * (v.abs() / 3) ** -1.5).clamp(max=1))
    curve = 2 / 3 * v * (1 + torch.cos(2 * torch.pi / 3 - 2 / 3 * angle))
    return torch.where(v.abs() > 54 ** (1 / 3) / 4 * lam ** (2 / 3), curve, 0)


def sparsemax(v):
    """Return the projection onto the simplex, its level found by bisection."""
    return torch.stack([row - row.new_tensor(_level(row.numpy())) for row in v]).relu()


def _level(row):
    return brentq(lambda tau: np.maximum(row - tau, 0).sum() - 1, row.min() - 1, row.max(), xtol=1e-15)


def group_top(v, s):
    """Return relu(v) on the s groups of three where it has the largest norm."""
    blocks = v.relu().reshape(len(v), 4, 3)
    keep = top_k(blocks.norm(dim=-1), s) > 0
    return (blocks * keep[..., None]).reshape(v.shape)


# %%
# Each R against the published activation
# ---------------------------------------
# On the left the library's prox, on the right the activation as its authors write it. The last two are neither
# separable nor cardinalities: `verify` compares them with a search over codes and, where R is convex, a convex solver.

zoo = [
    ("ReLU", get("relu", lam=0.7), functional.relu(U - 0.7)),
    ("JumpReLU", get("jumprelu", lam=0.5 * 1.2**2), functional.threshold(U, 1.2, 0.0)),
    ("two-sided", get("jumprelu2", positive=1.2, negative=0.6), torch.where((U > 1.2) | (U < -0.6), U, 0.0)),
    ("soft", get("soft", lam=0.7), functional.softshrink(U, 0.7)),
    ("hard", get("hard", lam=0.5 * 1.2**2), functional.hardshrink(U, 1.2)),
    ("gated", get("gated", threshold=1.5, shift=0.5), (U > 1.5) * functional.relu(U - 0.5)),
    ("half threshold", 0.7 * Lq(1 / 2), half_threshold(U, 2 * 0.7)),
    ("elastic net", get("elasticnet", lam=0.7, ridge=0.25), functional.softshrink(U, 0.7) / 1.25),
    ("TopK", get("topk", k=3), top_k(U, 3).relu()),
    ("AbsTopK", get("abstopk", k=3), top_k(U.abs(), 3) * U.sign()),
    ("BatchTopK", get("batchtopk", k=3), top_k(U.flatten(), 3 * 64).reshape(64, 12).relu()),
    ("group top-s", get("grouptopk", s=2, groups=3), group_top(U, 2)),
    ("sparsemax", get("sparsemax"), sparsemax(U)),
]
for name, R, published in zoo:
    torch.testing.assert_close(R.prox(U), published, atol=1e-12, rtol=1e-12)
    inner = ((R.prox(U)[:, None] - R.prox(U)[None]) * (U[:, None] - U[None])).sum(-1)
    if R.scope != "batch":
        assert inner.min() >= -1e-9, name  # the lemma, on all pairs of rows
    if R.is_separable or isinstance(R, Cardinality):
        assert prove(R).verdict == "proved"
        print(f"{name:15s} {R!s:39s} proved")
    else:
        assert verify(R).passed
        print(f"{name:15s} {R!s:39s} verified")

# %%
# The threshold of a JumpReLU is a cost: 1.2 is the weight :math:`1.2^2/2 = 0.72`; page 9 says why. Feature choice
# selects in each column what TopK selects in each row. And the encoder of SpaDE, sparsemax of the scaled squared
# distances to prototypes w, is affine before the prox after all: sparsemax does not see what all entries share,
# :math:`-\lambda\|x\|^2`.

feature_choice = (NonNegative() + Cardinality(5)).prox(U.T).T
torch.testing.assert_close(feature_choice, top_k(U.T, 5).T.relu())

x, w, scale = torch.randn(64, 5, dtype=torch.float64), torch.randn(12, 5, dtype=torch.float64), 0.3
distances = -scale * torch.cdist(x, w) ** 2
affine = x @ (2 * scale * w.T) - scale * (w**2).sum(-1)
torch.testing.assert_close(get("sparsemax").prox(affine), sparsemax(distances), atol=1e-12, rtol=1e-12)

# %%
# What is not a prox
# ------------------
# GELU, SiLU and Mish fall on the left of their minimum: a pair of points refutes them for every R.

u = torch.linspace(-6, 3, 9001, dtype=torch.float64)
not_proxes = {"GELU": functional.gelu, "SiLU": functional.silu, "Mish": functional.mish}
for name, activation in not_proxes.items():
    lowest = u[activation(u).argmin()]
    pair = torch.stack([lowest - 2, lowest])
    images = activation(pair)
    print(f"{name}: u = {pair.numpy().round(3)} -> z = {images.numpy().round(3)}")
    assert (images[1] - images[0]) * (pair[1] - pair[0]) < -0.01

# %%
# TopK *without* its ReLU, "the k largest entries, whatever their sign", is no prox either: an entry that grows past
# another negative one is switched on at a negative value. TopK needs z >= 0, or the modulus. (Published TopK layers
# have the ReLU; where k positive entries are always there, it makes no difference.)

V = torch.tensor([[-3.0, -2.0], [-1.0, -2.0]])
Z = top_k(V, 1)
print(f"u = {V.tolist()} -> z = {Z.tolist()}")
assert ((Z[0] - Z[1]) * (V[0] - V[1])).sum() == -2

# %%
# A gate with weights of its own (the gated SAE, untied) makes z no function of one pre-activation; as a map of gate and
# magnitude together it is not monotone.


def untied(v):
    """Return relu(magnitude) where the gate is open; the gates themselves are sent to 0."""
    gate, magnitude = v[:2], v[2:]
    return np.concatenate([0 * gate, (gate > 0) * np.maximum(magnitude, 0)])


found = check_map(untied, 4)
print(f"not {found.violation}: {found.detail.partition(' at ')[0]}")
assert not found.is_prox

# %%
# A prox, but of another R than the one trained with
# --------------------------------------------------
# SAEs with a ReLU are also trained with concave penalties, such as :math:`\sum_i |z_i|^p` (p-annealing) or tanh. The
# activation that matches such a penalty is its own prox. No shift of the ReLU makes up for it, on inputs abs(u):

R = 0.7 * Lq(1 / 2) + NonNegative()


def cost(Z):
    """Return the objective that the prox of R minimises, averaged over samples."""
    return (0.5 * ((Z - U.abs()) ** 2).sum(-1) + R.value(Z)).mean().item()


shifted, matched = min(cost(functional.relu(U.abs() - s)) for s in np.linspace(-1, 3, 201)), cost(R.prox(U.abs()))
print(f"objective: {shifted:.3f} for the best shifted ReLU, {matched:.3f} for the prox")
assert matched < 0.97 * shifted

# %%
# Each activation with its R
# --------------------------
# Where the activation (blue) jumps, R (orange) is not convex: small codes cost more than they save, and are skipped.

figure, axes = plt.subplots(2, 4, figsize=(10, 5), sharex=True, sharey=True, layout="constrained")
u = np.linspace(-3, 3, 1201)
for (name, R, _), axis in zip(zoo[:8], axes.flat, strict=True):
    z, values = R.prox(u[:, None])[:, 0], R.value(u[:, None])
    jumps = np.abs(np.diff(z, append=z[-1])) > 0.05
    axis.plot(u, z, ":", color="#0072b2", lw=1)
    axis.plot(u, np.where(jumps, np.nan, z), color="#0072b2", label="activation: z against u")
    axis.plot(u, np.where(np.isfinite(values), values, np.nan), color="#d55e00", label="R against z")
    axis.axhline(0, color="#bbb", lw=0.6, zorder=0)
    axis.axvline(0, color="#bbb", lw=0.6, zorder=0)
    axis.set(title=name, ylim=(-3, 3))
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

# %%
# Activations that are no prox, in red where they fall.

figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
u = torch.linspace(-5, 1.5, 1301, dtype=torch.float64)
curves = {name: activation(u) for name, activation in not_proxes.items()}
curves["TopK, no ReLU: $z_1$, $u_2 = -2$"] = top_k(torch.stack([u, torch.full_like(u, -2)], -1), 1)[:, 0]
for (name, z), axis in zip(curves.items(), axes, strict=True):
    falls = torch.diff(z, append=z[-1:]) < 0
    axis.plot(u, z, color="#0072b2")
    axis.plot(u, torch.where(falls | falls.roll(1), z, torch.nan), color="#cc3311", lw=2.5)
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("u")
axes[0].set_ylabel("z")
plt.show()
