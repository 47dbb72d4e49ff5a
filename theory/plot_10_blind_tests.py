r"""
10. How a wrong prox passes a bad test
======================================

Public catalogues of proximal operators have shipped wrong formulas, the first four below among them. Three kinds of
test cannot see such an error.

**Theorem (blindness).** **(i)** *If the prox of the conjugate is defined from the prox, Moreau's identity* :math:`u =
\mathrm{prox}_{tR}(u) + t\, \mathrm{prox}_{R^*/t}(u/t)` *holds for every function in place of the prox, even the
sine.*

**(ii)** *For* :math:`R = \lambda\|\cdot\|_0` *and* :math:`u \ne 0`, *both z = u and z = 0 are strict local minimisers
of* :math:`\frac12(z - u)^2 + t R(z)`. *A local optimiser that starts at the claimed answer therefore confirms a hard
threshold at any height.*

**(iii)** *A test that computes its expectation with the same formula compares two copies.*

**(iv)** *No property of the prox alone helps: the hard threshold at any* :math:`\tau` *is a prox, of*
:math:`\frac{\tau^2}{2t}\|\cdot\|_0`. *A check needs the value of R.*

**Theorem (sight).** *If* :math:`r \ge r(0)`, *every minimiser of* :math:`\frac12(z - u)^2 + t r(z)` *has* :math:`|z -
u| \le |u|`: *the whole line is an interval, which can be searched.*

**Proof.** (i) :math:`t\,(v - \frac1t p(tv))` at :math:`v = u/t` is :math:`u - p(u)`. (ii) Near u, F exceeds
:math:`F(u) = t\lambda` by :math:`\frac12(z - u)^2`; near 0, it exceeds F(0) by :math:`t\lambda` less a term of order
z. (iv) Page 9. *Sight:* :math:`\frac12(z - u)^2 + t r(0) \le F(z) \le F(0) = \frac12u^2 + t r(0)`. ∎

:func:`~proxsae.verify` searches zero, u, every point where the value jumps and a dense grid, then refines, and never
starts a search at the claimed answer. Its verdict comes with the numbers.

**References.** Beck (2017), First-order methods in optimization, SIAM, chapter 6; Bauschke and Combettes (2017), Convex
analysis and monotone operator theory in Hilbert spaces, Springer, chapters 12 to 14.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

from proxsae import verify
from proxsae.regularizers import L0, L1, MCP, Huber, LogSum

# %%
# Five formulas
# -------------
# Four that shipped in public libraries, and the sine. The values are those of this library; only the prox is wrong.


def l0_at_t_lam(u, t):
    """Cut at t, not at sqrt(2 t)."""
    return np.where(np.abs(u) > t, u, 0.0)


def huber_on_alpha(u, t):
    """Branch on abs(u) <= 1, not on abs(u) <= 1 + t."""
    return np.where(np.abs(u) <= 1, u / (1 + t), u - t * np.sign(u))


def log_with_two(u, t):
    """Take the discriminant (u + 1)^2 - 2 t, not 4 t, and never compare with z = 0."""
    discriminant = (np.abs(u) + 1) ** 2 - 2 * t
    root = 0.5 * (np.abs(u) - 1 + np.sqrt(np.maximum(discriminant, 0)))
    return np.where(discriminant >= 0, np.sign(u) * np.maximum(root, 0), 0.0)


def mcp_always_firm(u, t):
    """Take the firm threshold for t >= gamma = 1 too, where it must become a hard one at sqrt(t)."""
    slope = 1 / (1 - t) if t != 1 else 1.0
    firm = np.where(np.abs(u) < 1, slope * np.sign(u) * (np.abs(u) - t), u)
    return np.where(np.abs(u) <= t, 0.0, firm)


def sine(u, t):
    """Not a prox of anything."""
    return t * np.sin(u / t)


wrong = {
    "L0 cut at t": (L0(), l0_at_t_lam),
    "Huber on alpha": (Huber(1.0), huber_on_alpha),
    "log with 2t": (LogSum(1.0), log_with_two),
    "MCP always firm": (MCP(1.0), mcp_always_firm),
    "sine for L1": (L1(), sine),
}

# %%
# The same formulas once more, a number at a time, as the expectations of a test would have them.


def log_again(u, t):
    """Return the larger root, for one number."""
    D = (abs(u) + 1) ** 2 - 2 * t
    return math.copysign(max((abs(u) - 1 + math.sqrt(D)) / 2, 0), u) if D >= 0 else 0.0


def mcp_again(u, t):
    """Return the firm threshold, for one number."""
    if abs(u) <= t:
        return 0.0
    return (u - math.copysign(t, u)) / (1 - t) if abs(u) < 1 else u


again = {
    l0_at_t_lam: lambda u, t: u if abs(u) > t else 0.0,
    huber_on_alpha: lambda u, t: u / (1 + t) if abs(u) <= 1 else u - math.copysign(t, u),
    log_with_two: log_again,
    mcp_always_firm: mcp_again,
    sine: lambda u, t: t * math.sin(u / t),
}

# %%
# Three tests as they are written, and `verify`
# ---------------------------------------------

points, steps = np.linspace(-6.03, 6.03, 25), (0.3, 1.0, 4.0)


def objective(z, u, t, R):
    """Return F(z) of one coordinate."""
    return 0.5 * (np.ravel(z)[0] - u) ** 2 + t * R.value(np.ravel(z))


def moreau_test(_, prox):
    """Define the prox of R* by Moreau's identity, then test Moreau's identity."""

    def prox_of_conjugate(v, s):
        return v - s * prox(v / s, 1 / s)

    return all(np.allclose(prox(points, t) + t * prox_of_conjugate(points / t, 1 / t), points) for t in steps)


def local_test(R, prox):
    """Start a local optimiser at the claimed answer and see whether it improves."""
    for t in steps:
        for u in points:
            claimed = float(prox(np.array([u]), t)[0])
            found = minimize(objective, claimed, args=(u, t, R), method="Nelder-Mead", options={"xatol": 1e-9})
            if found.fun < objective(claimed, u, t, R) - 1e-6:
                return False
    return True


def formula_test(_, prox):
    """Compare with the same formula, written again."""
    return all(np.allclose(prox(points, t), [again[prox](u, t) for u in points]) for t in steps)


def verified(R, prox):
    """Ask `verify`, and print the first counterexample."""
    report = verify(value=R.penalties, prox=prox)
    print(*report.failures[:1])
    return report.passed


tests = {
    "Moreau's identity": moreau_test,
    "local optimiser": local_test,
    "same formula": formula_test,
    "verify": verified,
}
passes = {name: {label: test(R, prox) for label, test in tests.items()} for name, (R, prox) in wrong.items()}

# %%
# Which wrong formula passes which test:

for name, verdicts in passes.items():
    print(f"{name:16s} passes", *(label for label, passed in verdicts.items() if passed), sep="  ")
    assert verdicts["Moreau's identity"]
    assert verdicts["same formula"]
    assert not verdicts["verify"]
assert passes["L0 cut at t"]["local optimiser"]
assert passes["MCP always firm"]["local optimiser"]

# %%
# The right formulas pass as well: what the blind tests say does not depend on the formula.

for R, _ in wrong.values():
    assert moreau_test(R, R.prox), R
    assert local_test(R, R.prox), R
    assert verify(value=R.penalties, prox=R.prox).passed, R

# %%
# What the optimiser cannot leave
# -------------------------------
# The L0 objective at u = 0.7, where the wrong formula keeps u: the claimed answer is a local minimum, and 0 is lower.

figure, (left, right_axis) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", width_ratios=(1, 1.4))
z = np.linspace(-0.5, 1.5, 801)
z[np.argmin(np.abs(z))] = 1e-9
left.plot(z, [objective(v, 0.7, 0.5, L0()) for v in z], color="#0072b2")
left.plot(0.7, objective(0.7, 0.7, 0.5, L0()), "o", color="#cc3311", label="claimed, and locally optimal")
left.plot(0.0, objective(0.0, 0.7, 0.5, L0()), "o", color="#009e73", label="the global minimum")
left.set(xlabel="z", ylabel="F(z)", title="L0, t = 0.5, u = 0.7")
left.legend()
verdicts = [list(row.values()) for row in passes.values()]
right_axis.imshow(verdicts, cmap="RdYlGn_r", alpha=0.5, aspect="auto", vmin=0, vmax=1)
for i, row in enumerate(verdicts):
    for j, passed in enumerate(row):
        right_axis.text(j, i, "passes" if passed else "rejected", ha="center", va="center")
right_axis.set_xticks(range(len(tests)), list(tests), fontsize=9)
right_axis.set_yticks(range(len(passes)), list(passes))
right_axis.set_title("five wrong formulas, four tests")
plt.show()
