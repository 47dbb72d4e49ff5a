"""Differences between the regularizers of a sweep, paired by L0, seed and all else, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

from proxsae.studies.results import Row

DIFFERENCES = {"fvu": "FVU, %", "kl": "KL, %", "loss_recovered": "loss recovered, hundredths"}


def compared(
    rows: Sequence[Row], activation: str, reference: str, n_components: int, factor: int = 1
) -> list[dict[str, Any]]:
    """Return the differences of pairs of rows that differ in R alone, or also in their number of atoms.

    Parameters
    ----------
    rows : sequence of dict
        Rows of a sweep; failed rows are left out.
    activation, reference : str
    n_components : int
        The number of atoms of the first row of each pair.
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
    for row in measured.values():
        c = row["configuration"]
        other = measured.get(_key({**c, "activation": reference, "n_components": factor * n_components}))
        if (c["activation"], c["n_components"]) == (activation, n_components) and other is not None:
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
    """Return as text the difference of each activation and size from TopK of as many and of twice the atoms, by L0."""
    table = []
    configurations = [row["configuration"] for row in rows]
    for activation, size in dict.fromkeys((c["activation"], c["n_components"]) for c in configurations):
        for factor in (1, 2):
            if activation == "topk" and factor == 1:
                continue
            pairs = compared(rows, activation, "topk", size, factor)
            what = f"{activation} {size} against topk {factor * size}"
            levels = sorted({pair["l0"] for pair in pairs})
            table += [_line(what, f"{l0:g}", [pair for pair in pairs if pair["l0"] == l0]) for l0 in levels]
            if len(levels) > 1:
                table.append(_line(what, "all", pairs))
    return table


def factor_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return as text the difference of AbsTopK from TopK of as many and of twice the atoms by level of each factor.

    The factors are the scope of the selection, the scaling and AuxK; the difference is averaged over the levels of the
    other factors. The first two factors are also shown together.
    """
    table = []
    sizes = dict.fromkeys(row["configuration"]["n_components"] for row in rows)
    for size, factor in product(sizes, (1, 2)):
        pairs = [
            {**pair, "scope": scope or "token", "scope and scaling": f"{scope or 'token'}, {pair['scaling']}"}
            for scope in ("", "batch")
            for pair in compared(rows, f"{scope}abstopk", f"{scope}topk", size, factor)
        ]
        for name in ("scope", "scaling", "auxk", "scope and scaling"):
            levels = dict.fromkeys(pair[name] for pair in pairs)
            for level in levels if len(levels) > 1 else ():
                some = [pair for pair in pairs if pair[name] == level]
                shown = {True: "yes", False: "no"}.get(level, level)
                table.append(_line(f"AbsTopK {size} against TopK {factor * size}", f"{name}: {shown}", some))
    return table


def _line(what: str, where: str, pairs: list[dict[str, Any]]) -> dict[str, str]:
    row = {"": what, "k": where}
    for quantity, title in DIFFERENCES.items():
        mean, half, n = mean_and_interval(pairs, quantity)
        row[title] = f"{mean:+.2f}" if half is None else f"{mean:+.2f} ± {half:.2f}"
    return {**row, "seeds": str(n)}


def _key(configuration: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(configuration.items()))
