"""Codes on one active set as compiled loops: passes of coordinate descent, then Newton steps on quadratic pieces."""

from __future__ import annotations

import numpy as np

from proxsae.solvers.compiled_scalar import uncounted
from proxsae.solvers.scalar import FAR, FLAT

PASSES = 100  # most passes of coordinate descent and Newton steps on an active set
CALM = 1  # passes without a coordinate that leaves or reaches zero, before a Newton step
IMPATIENT = 16  # passes after which one is made anyway
LEAST_PIVOT = 1e-10  # of its diagonal entry: an atom with a smaller one depends on those before it

_fast = {"reassoc", "contract"}


@uncounted(fastmath=_fast)
def _descended(prox, parameters, A, steps, rest, z, r, index, m):  # type: ignore[no-untyped-def]
    """Set each coordinate to its best value; return the largest move and how many coordinates left or reached zero.

    A zero whose correlation is between its ends in `rest` stays, without an evaluation of its prox.
    """
    one = len(parameters) == 1
    largest, flips = 0.0, 0
    for a in range(m):
        if z[a] == 0.0 and rest[0, a] <= r[a] <= rest[1, a]:
            continue
        new = prox(z[a] + steps[a] * r[a], steps[a], parameters[0 if one else index[a]])
        change = new - z[a]
        if change != 0.0:
            flips += (new == 0.0) != (z[a] == 0.0)
            z[a] = new
            row = A[a]
            for b in range(m):
                r[b] -= change * row[b]
            largest = max(largest, abs(change) / steps[a])
    return largest, flips


@uncounted()
def _piece(prox, parameter, z, r, t):  # type: ignore[no-untyped-def]
    """Return whether z is inside a quadratic piece of its r, and there the slope of r at z and its curvature.

    The prox at u = z + t r is z~ with (u - z~) / t the slope of r at z~; its own slope m gives the curvature
    (1 / m - 1) / t. Two probes of the prox beside u measure m, closer ones where the two differ.
    """
    u = z + t * r
    at = prox(u, t, parameter)
    width = 1e-5 * max(abs(u), abs(z)) + 1e-300
    up, down = 0.0, 0.0
    for _ in range(3):
        up, down = (prox(u + width, t, parameter) - at) / width, (at - prox(u - width, t, parameter)) / width
        if abs(up - down) <= 1e-4:
            break
        width *= 1e-3
    m = 0.5 * (up + down)
    if min(up, down) < FLAT or not m < np.inf:
        return False, 0.0, 0.0
    curvature = (1.0 / m - 1.0) / t if abs(m - 1.0) > 1e-8 else 0.0  # negative where r is concave
    slope = (u - at) / t + curvature * (z - at)
    return _is_on(prox, parameter, z, z, slope, curvature, t, False), slope, curvature


@uncounted()
def _is_on(prox, parameter, new, z, slope, curvature, t, kinked):  # type: ignore[no-untyped-def]
    """Whether `new` lies on the same piece as z: there the prox of new + t r'(new) is new."""
    if kinked and new * z < 0.0:  # both sides of 0 may have the same slope
        return False
    v = new + t * (slope + curvature * (new - z))
    return abs(prox(v, t, parameter) - new) <= 1e-9 * (abs(new) + abs(z)) + 1e-15 * abs(v)


@uncounted()
def _end_of_piece(prox, parameter, z, delta, slope, curvature, t, kinked):  # type: ignore[no-untyped-def]
    """Return the share of the move that stays on the piece, and the value of the coordinate where it ends."""
    crosses = kinked and z * (z + delta) < 0.0
    if crosses and _is_on(prox, parameter, 1e-9 * z, z, slope, curvature, t, kinked):
        return -z / delta, 0.0  # the piece reaches to the kink, and need not be searched
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _is_on(prox, parameter, z + middle * delta, z, slope, curvature, t, kinked):
            low = middle
        else:
            high = middle
    inside, beyond = z + low * delta, z + high * delta
    value = prox(beyond + t * (slope + curvature * (beyond - z)), t, parameter)
    return low, value if abs(value - inside) <= 1e-6 * abs(z) else inside  # where the prox jumps, it stays on the piece


@uncounted(fastmath=_fast)
def _reach(prox, parameters, steps, z, index, kinked, support, k, slopes, curvatures, delta):  # type: ignore[no-untyped-def]
    """Return the share of delta up to where the first piece ends, the place of its coordinate or -1, and the end."""
    one = len(parameters) == 1
    share, first, end = 1.0, -1, 0.0
    for i in range(k):  # far steps come from atoms that nearly depend on one another
        a = support[i]
        reach = FAR * (abs(z[a]) + steps[a] * abs(slopes[i]))
        if share * abs(delta[i]) > reach:
            share = reach / abs(delta[i])
    for i in range(k):
        a = support[i]
        p = parameters[0 if one else index[a]]
        if not _is_on(prox, p, z[a] + share * delta[i], z[a], slopes[i], curvatures[i], steps[a], kinked[a]):
            delta_i = share * delta[i]
            part, value = _end_of_piece(prox, p, z[a], delta_i, slopes[i], curvatures[i], steps[a], kinked[a])
            share, first, end = share * part, i, value
    return share, first, end


@uncounted(fastmath=_fast)
def _move(A, z, r, m, support, k, slopes, curvatures, delta, share, first, end):  # type: ignore[no-untyped-def]
    """Move by a share of delta, and the coordinate at the place `first` to `end`."""
    for i in range(k):
        a = support[i]
        change = end - z[a] if i == first else share * delta[i]
        z[a] += change
        slopes[i] += curvatures[i] * change
        row = A[a]
        for b in range(m):
            r[b] -= change * row[b]


@uncounted(fastmath=_fast)
def _factored(A, support, k, curvatures, L):  # type: ignore[no-untyped-def]
    """Write the Cholesky factor of A + diag(curvatures) on the support, zero for atoms that depend on those before."""
    for i in range(k):
        for j in range(i + 1):
            v = A[support[i], support[j]]
            for h in range(j):
                v -= L[i, h] * L[j, h]
            if i != j:
                L[i, j] = v / L[j, j] if L[j, j] > 0.0 else 0.0
            else:
                diagonal = A[support[i], support[i]] + curvatures[i]
                v += curvatures[i]
                L[i, i] = np.sqrt(v) if v > LEAST_PIVOT * diagonal else 0.0


@uncounted(fastmath=_fast)
def _solve(L, k, x):  # type: ignore[no-untyped-def]
    """Overwrite the right-hand side x by the solution, which is zero for dependent atoms."""
    for i in range(k):
        v = x[i]
        for h in range(i):
            v -= L[i, h] * x[h]
        x[i] = v / L[i, i] if L[i, i] > 0.0 else 0.0
    for i in range(k - 1, -1, -1):
        row = L[i]
        x[i] = x[i] / row[i] if row[i] > 0.0 else 0.0
        for h in range(i):
            x[h] -= row[h] * x[i]


@uncounted()
def _newton(prox, parameters, A, steps, z, r, index, m, kinked, L, work, support, noise):  # type: ignore[no-untyped-def]
    """Step to the minimum on the quadratic pieces of the codes, or to where the first piece ends.

    Return whether the step took an atom out: whether the piece ended at 0.

    An atom that depends linearly on others of the support is left out of the system. Along the direction that exchanges
    it for the others, F is linear, or concave where r is. The step follows this direction downhill, where the fall is
    more than noise, to where a piece ends, which takes an atom out; where no piece ends, it does not move.
    """
    one = len(parameters) == 1
    slopes, curvatures, delta = work[0], work[1], work[2]
    k = 0
    for a in range(m):
        if z[a] != 0.0 or not kinked[a]:
            inside, slope, curvature = _piece(prox, parameters[0 if one else index[a]], z[a], r[a], steps[a])
            if inside:
                support[k], slopes[k], curvatures[k] = a, slope, curvature
                k += 1
    _factored(A, support, k, curvatures, L)
    for i in range(k):
        delta[i] = r[support[i]] - slopes[i]
    _solve(L, k, delta)
    share, first, end = _reach(prox, parameters, steps, z, index, kinked, support, k, slopes, curvatures, delta)
    _move(A, z, r, m, support, k, slopes, curvatures, delta, share, first, end)
    if first >= 0:
        return end == 0.0
    for i in range(k):
        downhill = r[support[i]] - slopes[i]
        if L[i, i] == 0.0 and abs(downhill) > noise:
            for h in range(k):
                delta[h] = -A[support[h], support[i]]
            _solve(L, k, delta)
            delta[i] = 1.0
            far = FAR * (abs(z[support[i]]) + steps[support[i]] * abs(slopes[i])) * np.sign(downhill)
            for h in range(k):
                delta[h] *= far
            share, first, end = _reach(prox, parameters, steps, z, index, kinked, support, k, slopes, curvatures, delta)
            if first >= 0:  # else nothing is to be had but rounding, or F has no minimum
                _move(A, z, r, m, support, k, slopes, curvatures, delta, share, first, end)
            return first >= 0 and end == 0.0
    return False


@uncounted()
def minimise_on_set(prox, parameters, A, steps, rest, z, r, index, m, L, work, support, kinked, ref, settled, noise):  # type: ignore[no-untyped-def]
    """Solve on the active set: passes of coordinate descent, and Newton steps once the zeros stand still.

    A Newton step that takes an atom out is followed by the next at once: a pass before it would bring atoms back that
    the minimum does without, and where many atoms depend on one another the two would undo one another's work.
    """
    calm = 0
    for n_pass in range(1, PASSES + 1):
        move, flips = _descended(prox, parameters, A, steps, rest, z, r, index, m)
        if move <= settled * ref:
            return
        calm = calm + 1 if flips == 0 else 0
        if calm >= CALM or n_pass % IMPATIENT == 0:
            for _ in range(m):
                if not _newton(prox, parameters, A, steps, z, r, index, m, kinked, L, work, support, noise):
                    break
