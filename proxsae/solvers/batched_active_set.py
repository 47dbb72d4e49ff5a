"""The active-set method in array operations, for tensors on a device: all samples at once, for every convex R."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from proxsae.formulas.arrays import Array, dtype_name, to_numpy
from proxsae.regularizers import Regularizer, Separable
from proxsae.solvers.active_set import ACTIVE_SET, ActiveSetState, lacks_rest, resting_move
from proxsae.solvers.certificates import rounded
from proxsae.solvers.inputs import in_main_memory
from proxsae.solvers.problem import Problem
from proxsae.solvers.scalar import FAR, FLAT, resting_slopes, scalar_prox

if TYPE_CHECKING:
    import torch

WATCHED = 32  # zeros in the active set beside the non-zeros
ENTRIES = 2**25  # of the products and atoms of the active sets that are solved at once: 256 MiB
SETTLED = 1e-13  # of the largest correlation: a move that small ends the passes
PASSES = 4  # of coordinate descent, each with Newton steps: what is not solved then goes on with more zeros
NEWTONS = 8  # in one pass, as long as a piece ends before the step
RIDGE = 1e-10  # of the diagonal entry: keeps the Gram matrix of dependent atoms invertible
HALVINGS = 50  # halvings in the search for the share of a move that stays on a piece


class Tools(NamedTuple):
    """What every batch needs, tensors of shape (n_components,); a zero atom has the step and the length 1."""

    R: Separable  # its parameters as the dtype of D rounds them, in float64
    steps: Array  # 1 / ||d_j||^2
    lengths: Array  # 1 / ||d_j||
    below: Array  # the correlations between which a zero rests
    above: Array


class ActiveSets(NamedTuple):
    """The active sets of some samples: float64 tensors of shape (n_samples, n_active), A with one axis more."""

    R: Separable
    A: Array  # the Gram matrix of the atoms
    z: Array  # the codes
    r: Array  # the correlations of the residual
    steps: Array
    kinked: Array  # whether r_j has a kink at 0


def prepare(R: Regularizer, D: torch.Tensor) -> Tools:
    """Return the tools for a dictionary."""
    import torch

    norms2 = (D.double() ** 2).sum(1)
    known = norms2 > 0
    steps = torch.where(known, 1.0 / norms2, 1.0)
    in_memory = in_main_memory(R)
    assert isinstance(in_memory, Separable)
    prox, parameters = scalar_prox(in_memory, np.dtype(dtype_name(D)), np.dtype(np.float64))
    ends = resting_slopes(in_memory, prox, parameters, to_numpy(norms2))
    below, above = (torch.as_tensor(end, device=D.device) for end in ends)
    below, above = torch.where(known, below, -torch.inf), torch.where(known, above, torch.inf)
    return Tools(rounded(R, D), steps, steps.sqrt(), below, above)


def start_batched(problem: Problem, codes: Array) -> ActiveSetState:
    """Return the state at given codes."""
    import torch

    at_rest = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    return _measured(problem, codes, at_rest)


def grow_batched(problem: Problem, state: ActiveSetState) -> ActiveSetState:
    r"""Return codes on a larger active set: :func:`proxsae.solvers.active_set.grow` for all samples at once.

    The active set of a sample holds its non-zeros and the zeros that leave zero or are nearest to leaving it. Their
    Gram matrices are one batched product in float64; passes of coordinate descent take a coordinate of every sample at
    a time, and Newton steps are batched Cholesky factors. Samples are taken in the order of their non-zeros, as many at
    once as `ENTRIES` allows.
    """
    Z, at_rest = state.codes.clone(), state.at_rest.clone()
    counts = (Z != 0).sum(1)
    order, first, (p, d) = counts.argsort(), 0, problem.dictionary.shape
    while first < len(order):
        most = min(p, int(counts[order[first]]) + 2 * WATCHED)
        rows = order[first : first + max(1, ENTRIES // (most * (most + d)))]
        active = min(p, int(counts[rows[-1]]) + WATCHED)
        _solve_rows(problem, state, rows, active, Z, at_rest)
        first += len(rows)
    return _measured(problem, Z, at_rest)


def _measured(problem: Problem, Z: Array, at_rest: Array) -> ActiveSetState:
    tools = problem.tools
    E = problem.targets - Z @ problem.dictionary
    Q = E @ problem.dictionary.T
    beyond = (_beyond(tools, Q) * (Z == 0)).amax(1).clamp(min=0.0)
    return ActiveSetState(Z, E, Q, beyond, at_rest)


def _beyond(tools: Tools, Q: Array) -> Array:
    """Return how far correlations lie beyond the ends where a zero rests, over ||d_j||; negative between the ends."""
    import torch

    return torch.maximum(Q.double() - tools.above, tools.below - Q.double()) * tools.lengths


def _solve_rows(problem: Problem, state: ActiveSetState, rows: Array, active: int, Z: Array, at_rest: Array) -> None:
    """Minimise F on the active sets of some samples; write their codes and for how many steps they have rested."""
    tools, D = problem.tools, problem.dictionary
    codes, Q = state.codes[rows], state.correlations[rows]
    score = _beyond(tools, Q).masked_fill(codes != 0, float("inf"))
    index = score.topk(active, 1, sorted=False).indices
    atoms = D[index].double()
    z, r, steps = codes.gather(1, index).double(), Q.gather(1, index).double(), tools.steps[index]
    kinked = (tools.below < tools.above)[index]
    sets = ActiveSets(tools.R.at(index), atoms @ atoms.mT, z, r, steps, kinked)
    ref = (r.abs() + z.abs() / steps).amax(1)
    rounding = resting_move(D)
    move = (sets.R.prox_unchecked(z + steps * r, steps) - z).abs() / steps
    zeros_rest = state.beyond[rows] <= rounding * (Q.abs() * tools.lengths).amax(1)
    rests = zeros_rest & (move.amax(1) <= rounding * ref)
    at_rest[rows] = (at_rest[rows] + 1) * rests
    _solve_sets(sets, SETTLED * ref)
    Z[rows] = Z[rows].scatter(1, index, z.to(Z.dtype))


def _solve_sets(sets: ActiveSets, settled: Array) -> None:
    """Minimise F on the active sets, in place: passes of coordinate descent, and Newton steps."""
    for _ in range(PASSES):
        moves = _descend(sets) > settled
        if not bool(moves.any()):
            return
        for _ in range(NEWTONS):
            if not bool(moves.any()):
                break
            moves = moves & _newton(sets, moves)


def _descend(sets: ActiveSets) -> Array:
    """Set each coordinate to its best value; return the largest moves, as correlations."""
    import torch

    R, A, z, r, steps, _ = sets
    largest = torch.zeros_like(z[:, 0])
    for a in range(z.shape[1]):
        t, old = steps[:, a], z[:, a].clone()
        new = _column(R, a).prox_unchecked(old + t * r[:, a], t)
        change = new - old
        z[:, a] = new
        r.addcmul_(A[:, a], change[:, None], value=-1.0)
        largest = torch.maximum(largest, change.abs() / t)
    return largest


def _column(R: Separable, a: int) -> Any:
    """Return R of the a-th active coordinate of every sample."""
    return R.map_parameters(lambda _, value: value[:, a] if np.ndim(value) > 1 else value)


def _newton(sets: ActiveSets, chosen: Array) -> Array:
    """Step, in the chosen samples, to the minimum on the pieces of the codes, or to where the first piece ends.

    Return in which samples a piece ended.
    """
    import torch

    _, A, z, r, _, kinked = sets
    inside, slope, curvature = _pieces(sets)
    free = inside & ((z != 0) | ~kinked) & chosen[:, None]
    H = A * (free[:, :, None] & free[:, None, :])
    diagonal = H.diagonal(dim1=1, dim2=2)
    diagonal += torch.where(free, curvature + RIDGE * (diagonal + curvature), 1.0)
    factors, failed = torch.linalg.cholesky_ex(H)
    downhill = torch.where(free, r - slope, 0.0)
    delta = torch.cholesky_solve(downhill[:, :, None], factors)[:, :, 0]
    delta = torch.where(free & (failed == 0)[:, None], delta, 0.0)
    return _move(sets, delta, slope, curvature)


def _pieces(sets: ActiveSets) -> tuple[Array, Array, Array]:
    """Return whether codes are inside a quadratic piece of their r, and there the slope of r and its curvature.

    As in :mod:`proxsae.solvers.compiled_newton`, two probes of the prox beside u = z + t r give its slope m, and m
    gives the curvature (1 / m - 1) / t.
    """
    import torch

    R, _, z, r, t, _ = sets
    u = z + t * r
    at = R.prox_unchecked(u, t)
    size = torch.maximum(u.abs(), z.abs())
    up, down, width = torch.zeros_like(u), torch.ones_like(u), 1e-5 * size
    for _ in range(3):
        unsettled = (up - down).abs() > 1e-4
        up = torch.where(unsettled, (R.prox_unchecked(u + width, t) - at) / width, up)
        down = torch.where(unsettled, (at - R.prox_unchecked(u - width, t)) / width, down)
        width = 1e-3 * width
    m = 0.5 * (up + down)
    curvature = torch.where((m - 1.0).abs() > 1e-8, (1.0 / m - 1.0) / t, 0.0)
    slope = (u - at) / t + curvature * (z - at)
    inside = (torch.minimum(up, down) >= FLAT) & torch.isfinite(curvature)
    return inside & _is_on(sets, z, slope, curvature), slope, curvature


def _is_on(sets: ActiveSets, new: Array, slope: Array, curvature: Array) -> Array:
    """Whether `new` lies on the same piece as z: there the prox of new + t r'(new) is new."""
    R, _, z, _, t, kinked = sets
    v = new + t * (slope + curvature * (new - z))
    is_on = (R.prox_unchecked(v, t) - new).abs() <= 1e-9 * (new.abs() + z.abs()) + 1e-15 * v.abs()
    return is_on & ~(kinked & (new * z < 0))  # both sides of 0 may have the same slope


def _move(sets: ActiveSets, delta: Array, slope: Array, curvature: Array) -> Array:
    """Move along delta, at most by delta, to where the first piece ends; return in which samples a piece ended."""
    import torch

    _, A, z, r, t, _ = sets
    reach = FAR * (z.abs() + t * slope.abs())  # far steps come from atoms that nearly depend on one another
    delta = delta * torch.where(delta.abs() > reach, reach / delta.abs(), 1.0).amin(1, keepdim=True)
    leaves = (delta != 0) & ~_is_on(sets, z + delta, slope, curvature)
    if bool(leaves.any()):
        delta = _to_first_end(sets, delta, slope, curvature, leaves)
    z += delta
    r -= (A @ delta[:, :, None])[:, :, 0]
    ended: Array = leaves.any(1)
    return ended


def _to_first_end(sets: ActiveSets, delta: Array, slope: Array, curvature: Array, leaves: Array) -> Array:
    """Return the part of each move up to where the first coordinate that leaves its piece is at its end."""
    import torch

    R, _, z, _, t, kinked = sets
    low, high = torch.where(leaves, 0.0, 1.0), torch.ones_like(delta)  # shares of the move, inside and beyond
    to_zero = leaves & kinked & (z * (z + delta) < 0) & _is_on(sets, 1e-9 * z, slope, curvature)
    low = torch.where(to_zero, -z / delta, low)  # the piece reaches to the kink, and need not be searched
    searched = leaves & ~to_zero
    if bool(searched.any()):
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            stays = _is_on(sets, z + middle * delta, slope, curvature)
            low, high = torch.where(searched & stays, middle, low), torch.where(searched & ~stays, middle, high)
    part, first = low.min(1, keepdim=True)
    inside, beyond = z + low * delta, z + high * delta
    end = R.prox_unchecked(beyond + t * (slope + curvature * (beyond - z)), t)
    end = torch.where((end - inside).abs() <= 1e-6 * z.abs(), end, inside)
    end = torch.where(to_zero, 0.0, end)
    at_end = torch.zeros_like(leaves).scatter(1, first, leaves.gather(1, first))
    return torch.where(at_end, end - z, part * delta)


def lacks_batches(R: Regularizer) -> str | None:
    """Say in one sentence what the method lacks for R, or return None."""
    if (lack := lacks_rest(R)) is not None:
        return lack
    return None if R.is_convex else f"needs a convex R on a device, and {R} is not"


BATCHED_ACTIVE_SET = ACTIVE_SET._replace(
    start=start_batched, update=grow_batched, refuses=lacks_batches, is_compiled=False, prepare=prepare, fit=None
)
