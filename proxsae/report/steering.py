"""The figure of the steering benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxsae.llm.steer_bench.summary import ALL, summarise
from proxsae.report.figures import COLOURS, blank_figure


def steering_figure(rows: list[dict[str, Any]], damage: float) -> Any:
    """Return a matplotlib figure: shares at one damage of every method, and of shift against damage.

    Parameters
    ----------
    rows : list of dict
        Rows of :func:`proxsae.llm.steer_bench`.
    damage : float
        KL in nats a token.
    """
    summary = summarise(rows, [damage])
    of_all = {
        (row["method"], row["variant"]): row for row in summary if (row["axis"], row["direction"]) == (ALL, "weaker")
    }
    order = sorted(of_all, key=lambda key: of_all[key]["share"])
    families = list(dict.fromkeys(row["method"] for row in rows))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(families)}
    figure, (left, right) = blank_figure(1, 2, (12, 0.42 * len(order) + 1.6))
    for place, key in enumerate(order):
        one, colour = of_all[key], colours[key[0]]
        axes = [
            row["share"]
            for row in summary
            if (row["method"], row["variant"], row["direction"]) == (*key, "weaker") and row["axis"] != ALL
        ]
        left.scatter(axes, [place] * len(axes), s=12, color=colour, alpha=0.4, lw=0)
        left.plot([one["low"], one["high"]], [place, place], color=colour, lw=2)
        left.scatter([one["share"]], [place], s=45, color=colour, zorder=3)
    left.set_yticks(range(len(order)), [_label(key) for key in order], fontsize=9)
    left.axvline(0, color="#888", lw=0.8)
    left.set(
        title=f"the weaker of the two directions, at KL {damage:g}",
        xlabel="shift, as a share of the clean gap of a pair",
    )
    grid = np.linspace(0, damage, 13)[1:]
    curve = summarise(rows, grid.tolist())
    for key in reversed(order):
        shares = [
            np.mean([r["share"] for r in curve if _is(r, key) and r["damage"] == kl and r["direction"] in "ab"])
            for kl in grid.tolist()
        ]
        style = {"pair": "--", "random atom": ":"}.get(key[1], "-")
        right.plot([0, *grid], [0, *shares], style, color=colours[key[0]], lw=1.5, label=_label(key))
    right.set(
        title="mean of both directions", xlabel="KL on neutral text, nats a token", ylabel="share of the clean gap"
    )
    right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for axis in (left, right):
        axis.grid(alpha=0.25, lw=0.5)
    return figure


def _is(row: dict[str, Any], key: tuple[str, str]) -> bool:
    return (row["method"], row["variant"], row["axis"]) == (*key, ALL)


def _label(key: tuple[str, str]) -> str:
    return key[0] if key[1] == "direction" else ", ".join(key)
