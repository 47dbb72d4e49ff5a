"""From the rows of the benchmark to shifts at fixed damage, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ALL = "all"  # the mean over axes
N_DRAWS = 1000

Array = NDArray[np.float64]


def at_damage(kl: Sequence[float], shifts: Any, damage: float) -> Array:
    r"""Return the shift of each template at a fixed KL, linear in :math:`\sqrt{\mathrm{KL}}` between two strengths.

    For small pushes the shift grows as their length and the KL as its square. The path starts at no push, with KL 0 and
    shift 0; the first crossing counts.

    Parameters
    ----------
    kl : sequence of float, shape (n_strengths,)
    shifts : array of shape (n_strengths, n_templates)
    damage : float

    Returns
    -------
    float64 array of shape (n_templates,)
        nan where the path ends below the damage.
    """
    shifts = np.asarray(shifts, np.float64)
    path = np.vstack([np.zeros(shifts.shape[1]), shifts])
    roots = np.sqrt(np.maximum([0.0, *kl], 0.0))
    above = np.flatnonzero(roots >= np.sqrt(damage))
    if not len(above):
        return np.full(shifts.shape[1], np.nan)
    end = int(above[0])
    share = (np.sqrt(damage) - roots[end - 1]) / (roots[end] - roots[end - 1])
    found: Array = path[end - 1] + share * (path[end] - path[end - 1])
    return found


def summarise(rows: Sequence[dict[str, Any]], damages: Sequence[float] = (0.1, 0.3)) -> list[dict[str, Any]]:
    """Return the shift at fixed damage of each method, variant, axis and direction.

    Parameters
    ----------
    rows : list of dict
        Rows of :func:`steer_bench`.
    damages : sequence of float
        KL in nats a token.

    Returns
    -------
    list of dict
        ``direction`` is "a", "b" or "weaker": the smaller of the two, seed by seed. ``share`` is the shift over the gap
        that the two contexts of a pair have in the clean model, a mean over templates and seeds, and ``shift`` the same
        in nats. ``low`` and ``high`` are the 95 % interval of the share: seeds drawn again, and templates within each;
        ``seed_low`` and ``seed_high`` the shares of the weakest and the strongest seed. Axis "all" is the mean over
        axes. nan where a path does not reach the damage.
    """
    found = []
    for damage in damages:
        for (method, variant, axis, direction), share in _shares(rows, damage).items():
            low, high = np.quantile(share.draws, [0.025, 0.975])
            found.append(
                {"damage": damage, "method": method, "variant": variant, "axis": axis, "direction": direction}
                | {"share": float(share.seeds.mean()), "low": float(low), "high": float(high)}
                | {"seed_low": float(share.seeds.min()), "seed_high": float(share.seeds.max())}
                | {"shift": share.shift, "seeds": len(share.seeds)}
            )
    return found


def differences(rows: Sequence[dict[str, Any]], damage: float) -> list[dict[str, Any]]:
    """Return for every two methods the difference of their shares, with its 95 % interval.

    The shares are those of the weaker direction over all axes. Both methods see the same templates, and every draw
    of the bootstrap takes the same templates for both.
    """
    shares = {key[:2]: share for key, share in _shares(rows, damage).items() if key[2:] == (ALL, "weaker")}
    found = []
    for (one, first), (other, second) in combinations(shares.items(), 2):
        low, high = np.quantile(first.draws - second.draws, [0.025, 0.975])
        told = {"damage": damage, "direction": "weaker", "first": " ".join(one), "second": " ".join(other)}
        difference = float(first.seeds.mean() - second.seeds.mean())
        found.append(told | {"difference": difference, "low": float(low), "high": float(high)})
    return found


class _Share(NamedTuple):
    seeds: Array  # shares of the seeds
    draws: Array  # means over seeds and templates that are drawn again
    shift: float  # in nats


def _shares(rows: Sequence[dict[str, Any]], damage: float) -> dict[tuple[str, str, str, str], _Share]:
    """Return the shares by method, variant, axis and direction."""
    paths: dict[tuple[str, str, str], dict[int, dict[str, list[dict[str, Any]]]]] = {}
    for row in sorted(rows, key=lambda row: float(row["strength"])):
        seeds = paths.setdefault((row["method"], row["variant"], row["axis"]), {})
        seeds.setdefault(row["seed"], {}).setdefault(row["direction"], []).append(row)
    found: dict[tuple[str, str, str, str], _Share] = {}
    for key, of_seeds in paths.items():
        for direction, share in _of_axis(of_seeds, damage).items():
            found[*key, direction] = share
    for method, variant in dict.fromkeys(key[:2] for key in paths):
        for direction in ("a", "b", "weaker"):
            axes = [found[key] for key in found if key[:2] == (method, variant) and key[3] == direction]
            found[method, variant, ALL, direction] = _Share(
                np.mean([share.seeds for share in axes], axis=0),
                np.mean([share.draws for share in axes], axis=0),
                float(np.mean([share.shift for share in axes])),
            )
    return found


def _of_axis(of_seeds: dict[int, dict[str, list[dict[str, Any]]]], damage: float) -> dict[str, _Share]:
    """Return the shares of either direction and of the weaker one."""
    means: dict[str, list[float]] = {"a": [], "b": []}
    shifts: dict[str, list[float]] = {"a": [], "b": []}
    drawn: dict[str, list[Array]] = {"a": [], "b": []}
    for seed, directions in sorted(of_seeds.items()):
        for direction, path in directions.items():
            shift = at_damage([row["kl"] for row in path], [row["shifts"] for row in path], damage)
            gap = path[0]["gap"]
            # the same templates for every method of that seed, so that differences are of pairs
            again = np.random.default_rng([seed, direction == "a"]).integers(len(shift), size=(N_DRAWS, len(shift)))
            means[direction].append(float(shift.mean()) / gap)
            shifts[direction].append(float(shift.mean()))
            drawn[direction].append(shift[again].mean(axis=1) / gap)
    means["weaker"] = np.minimum(means["a"], means["b"]).tolist()
    shifts["weaker"] = np.minimum(shifts["a"], shifts["b"]).tolist()
    drawn["weaker"] = list(np.minimum(drawn["a"], drawn["b"]))
    n = len(of_seeds)
    seeds = np.random.default_rng(n).integers(n, size=(n, N_DRAWS))
    return {
        direction: _Share(
            np.array(means[direction]),
            np.take_along_axis(np.array(drawn[direction]), seeds, axis=0).mean(axis=0),
            float(np.mean(shifts[direction])),
        )
        for direction in means
    }
