"""Differences between the regularizers of a sweep, paired by L0, seed and all else, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from proxsae.studies.results import Row

SIZES = {1: "P", 2: "2 P"}
DIFFERENCES = {"fvu": "FVU, %", "kl": "KL, %", "loss_recovered": "loss recovered, hundredths"}


def compared(rows: Sequence[Row], activation: str, reference: str, factor: int = 1) -> list[dict[str, Any]]:
    """Return the differences of pairs of rows that differ in R alone, or also in their number of atoms.

    The first row of a pair has P atoms, the least number in the sweep.

    Parameters
    ----------
    rows : sequence of dict
        Rows of a sweep; failed rows are left out.
    activation, reference : str
    factor : int, default 1
        The reference has `factor` times as many atoms.

    Returns
    -------
    list of dict
        For each pair the configuration of the first row, and its differences from the reference: ``fvu`` and ``kl`` in
        percent of the values of the reference, ``loss_recovered`` in hundredths.
    """
    measured = {_key(row["configuration"]): row for row in rows if "result" in row}
    pairs = []
    least = min((row["configuration"]["n_components"] for row in measured.values()), default=0)
    for row in measured.values():
        c = row["configuration"]
        if c["n_components"] != least:
            continue
        other = measured.get(_key({**c, "activation": reference, "n_components": factor * c["n_components"]}))
        if c["activation"] == activation and other is not None:
            a, b = row["result"], other["result"]
            relative = {name: 100 * (a[name] / b[name] - 1) for name in ("fvu", "kl")}
            hundredths = 100 * (a["loss_recovered"] - b["loss_recovered"])
            pairs.append({**c, **relative, "loss_recovered": hundredths})
    return pairs


def mean_and_interval(pairs: Iterable[dict[str, Any]], quantity: str) -> tuple[float, float | None, int]:
    """Return the mean difference, half its 95 % interval (Student's t over seeds), and the number of seeds.

    A seed counts once: its pairs are averaged first. The interval is None for one seed.
    """
    from scipy.stats import t

    by_seed: dict[int, list[float]] = {}
    for pair in pairs:
        by_seed.setdefault(pair["seed"], []).append(pair[quantity])
    means = np.array([np.mean(values) for values in by_seed.values()])
    n = len(means)
    half = None if n < 2 else float(t.ppf(0.975, n - 1) * means.std(ddof=1) / np.sqrt(n))
    return float(means.mean()), half, n


def comparison_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return as text the difference of each activation from TopK at each L0: of P atoms, and of 2 P."""
    table = []
    for activation in dict.fromkeys(row["configuration"]["activation"] for row in rows):
        for factor in (1, 2):
            if activation == "topk" and factor == 1:
                continue
            pairs = compared(rows, activation, "topk", factor)
            what = f"{activation} (P) against topk ({SIZES[factor]})"
            levels = sorted({pair["l0"] for pair in pairs})
            table += [_line(what, f"{l0:g}", [pair for pair in pairs if pair["l0"] == l0]) for l0 in levels]
            if len(levels) > 1:
                table.append(_line(what, "all", pairs))
    return table


def factor_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return as text the difference of AbsTopK(P) to TopK(P) and TopK(2 P) at either level of each factor.

    The factors are the scope of the selection, the scaling and AuxK; the difference is averaged over the levels of the
    other factors. The first two factors are also shown together.
    """
    table = []
    for factor in (1, 2):
        pairs = [
            {**pair, "scope": scope or "token", "scope and scaling": f"{scope or 'token'}, {pair['scaling']}"}
            for scope in ("", "batch")
            for pair in compared(rows, f"{scope}abstopk", f"{scope}topk", factor)
        ]
        for name in ("scope", "scaling", "auxk", "scope and scaling"):
            levels = dict.fromkeys(pair[name] for pair in pairs)
            for level in levels if len(levels) > 1 else ():
                some = [pair for pair in pairs if pair[name] == level]
                shown = {True: "yes", False: "no"}.get(level, level)
                table.append(_line(f"AbsTopK (P) against TopK ({SIZES[factor]})", f"{name}: {shown}", some))
    return table


def _line(what: str, where: str, pairs: list[dict[str, Any]]) -> dict[str, str]:
    row = {"": what, "k": where}
    for quantity, title in DIFFERENCES.items():
        mean, half, n = mean_and_interval(pairs, quantity)
        row[title] = f"{mean:+.2f}" if half is None else f"{mean:+.2f} ± {half:.2f}"
    return {**row, "seeds": str(n)}


def _key(configuration: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(configuration.items()))
