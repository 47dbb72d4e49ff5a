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
   soft, hard threshold & :math:`\lambda \|z\|_1`; :math:`\frac{\theta^2}{2} \|z\|_0` & LISTA; signed SAE
   gate and magnitude & :math:`\frac{(\theta - s)_+^2}{2} \|z\|_0 + s \sum_i z_i + \iota\{z \ge 0\}` & gated SAE, tied
   half threshold & :math:`\lambda \sum_i |z_i|^{1/2}` & L1/2, p-annealing
   elastic net & :math:`\lambda \|z\|_1 + \frac a2 \|z\|_2^2`
   TopK & :math:`\iota\{\|z\|_0 \le k,\ z \ge 0\}` & TopK SAE
   AbsTopK & :math:`\iota\{\|z\|_0 \le k\}` & AbsTopK SAE
   BatchTopK & :math:`\iota\{\|Z\|_0 \le k n,\ Z \ge 0\}`, n rows & BatchTopK SAE
   group top-s & :math:`\iota\{\text{at most s groups} \ne 0,\ z \ge 0\}`
   sparsemax & :math:`\iota\{z \ge 0,\ \sum_i z_i = 1\}` & SpaDE

**Lemma (why others are not).** *Every prox is monotone:* :math:`\langle z - z', u - u' \rangle \ge 0` *for* :math:`z
= \mathrm{prox}_R(u),\ z' = \mathrm{prox}_R(u')`, *whatever R. In particular a scalar activation that decreases
somewhere, such as GELU, SiLU or Mish, is the prox of no R.*

**Proof of the lemma.** z is at least as good as z' at u, and z' at least as good as z at u': :math:`\frac12\|z-u\|^2
+ R(z) \le \frac12\|z'-u\|^2 + R(z')` and the same with primes exchanged. Add them; R and the squares cancel, and
:math:`-\langle z, u\rangle - \langle z', u'\rangle \le -\langle z', u\rangle - \langle z, u'\rangle` is left. ∎

The theorem is proved by `prove` where R is separable or a cardinality, and each R is compared with the published
activation as others wrote it.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import brentq
from torch.nn import functional

from proxsae.regularizers import Lq, get
from proxsae.verification import prove

torch.manual_seed(0)
U = torch.randn(64, 12, dtype=torch.float64) * 2
groups = np.repeat(np.arange(4), 3)


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

zoo = [
    ("ReLU", get("relu", lam=0.7), functional.relu(U - 0.7)),
    ("JumpReLU", get("jumprelu", lam=0.5 * 1.3**2), functional.threshold(U, 1.3, 0.0)),
    ("two-sided", get("jumprelu2", positive=1.3, negative=0.8), torch.where((U > 1.3) | (U < -0.8), U, 0.0)),
    ("soft", get("soft", lam=0.7), functional.softshrink(U, 0.7)),
    ("hard", get("hard", lam=0.5 * 1.3**2), functional.hardshrink(U, 1.3)),
    ("gated", get("gated", threshold=1.3, shift=0.4), (U > 1.3) * functional.relu(U - 0.4)),
    ("half threshold", 0.7 * Lq(1 / 2), half_threshold(U, 2 * 0.7)),
    ("elastic net", get("elasticnet", lam=0.7, ridge=0.25), functional.softshrink(U, 0.7) / 1.25),
    ("TopK", get("topk", k=3), top_k(U, 3).relu()),
    ("AbsTopK", get("abstopk", k=3), top_k(U.abs(), 3) * U.sign()),
    ("BatchTopK", get("batchtopk", k=3), top_k(U.flatten(), 3 * 64).reshape(64, 12).relu()),
    ("group top-s", get("grouptopk", s=2, groups=groups), group_top(U, 2)),
    ("sparsemax", get("sparsemax"), sparsemax(U)),
]
for name, R, published in zoo:
    torch.testing.assert_close(R.prox(U), published, atol=1e-12, rtol=1e-12)
    inner = ((R.prox(U)[:, None] - R.prox(U)[None]) * (U[:, None] - U[None])).sum(-1)
    if R.scope != "batch":
        assert inner.min() >= -1e-9, name  # the lemma, on all pairs of rows
    proof = prove(R) if R.scope in ("coordinate", "batch") or "topk" in name.lower() else None
    print(f"{name:15s} {R!s:50s} {proof.verdict + f' in {proof.seconds:.1f} s' if proof else 'compared'}")
    assert proof is None or proof.verdict == "proved"

# %%
# The two threshold parameters are costs: JumpReLU at 1.3 is the weight :math:`1.3^2/2 = 0.845`; page 9 says why.
#
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
# another negative one is switched on at a negative value. TopK needs z >= 0, or the modulus.

U = torch.tensor([[-3.0, -2.0], [-1.0, -2.0]])
Z = top_k(U, 1)
print(f"u = {U.tolist()} -> z = {Z.tolist()}")
assert ((Z[0] - Z[1]) * (U[0] - U[1])).sum() == -2

# %%
# Each activation above its R
# ---------------------------
# Where the activation jumps (dotted), R is not convex: small codes cost more than they save, and are skipped.

shown = {name: R for name, R, _ in zoo[:8]}
figure, axes = plt.subplots(2, 8, figsize=(14, 3.8), sharex=True, sharey="row", layout="constrained")
u = np.linspace(-3, 3, 1201)
for (name, R), (top, bottom) in zip(shown.items(), axes.T, strict=True):
    z = R.prox(u[:, None])[:, 0]
    steps = np.abs(np.diff(z, append=z[-1])) > 0.05
    top.plot(u, np.where(steps, np.nan, z), color="#0072b2")
    top.plot(u, z, ":", color="#0072b2", lw=1)
    values = R.value(u[:, None])
    bottom.plot(u, np.where(np.isfinite(values), values, np.nan), color="#d55e00")
    top.set_title(name, fontsize=10)
    bottom.set_xlabel("u, z", fontsize=8)
axes[0, 0].set_ylabel("activation")
axes[1, 0].set(ylabel="R(z)", ylim=(-0.1, 2.2))
for axis in axes.flat:
    axis.axhline(0, color="#bbb", lw=0.6, zorder=0)
    axis.axvline(0, color="#bbb", lw=0.6, zorder=0)

# %%
# And those that are none: where they fall, in red.

figure, axes = plt.subplots(1, 4, figsize=(12, 2.8), layout="constrained")
u = torch.linspace(-5, 1.5, 1301, dtype=torch.float64)
curves = {name: activation(u) for name, activation in not_proxes.items()}
curves["signed TopK: $z_1$ at $u_2 = -2$"] = top_k(torch.stack([u, torch.full_like(u, -2)], -1), 1)[:, 0]
for (name, z), axis in zip(curves.items(), axes, strict=True):
    falls = torch.diff(z, append=z[-1:]) < 0
    axis.plot(u, z, color="#0072b2")
    axis.plot(u, torch.where(falls | falls.roll(1), z, torch.nan), color="#cc3311", lw=2.5)
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("u")
plt.show()
