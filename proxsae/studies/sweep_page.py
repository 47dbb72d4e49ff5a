"""The results of a sweep: means and ranges over seeds, differences between regularizers, figures and a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from proxsae.data.files import replacing
from proxsae.report import Section, write_sections
from proxsae.report.figures import curves_with_ranges, svg
from proxsae.studies.comparison import comparison_table, factor_table
from proxsae.studies.results import Row
from proxsae.studies.seeds import mean_and_range

QUANTITIES = {
    "fvu": "FVU",
    "over_topk": "FVU / FVU of topk",  # and how many atoms that has
    "mse": "MSE",
    "loss_recovered": "loss recovered",
    "kl": "KL (nats a token)",
    "dead_in_training": "dead atoms (fraction)",
}

PAIRED = (
    "What the first has more than the second, with their numbers of atoms, in percent (FVU, KL: negative is better) or "
    "in hundredths (loss recovered: positive is better): the mean over pairs, and half of its 95 % interval (Student's "
    "t over seeds). The two of a pair have the same k, seed, scaling and AuxK; a line averages over those that it does "
    "not name."
)


def kind(row: Row) -> str:
    """Return what seeds and L0 repeat: activation, atoms, and what departs from the usual."""
    c = row["configuration"]
    aside = (", token-standardised" if c["scaling"] == "token" else "") + ("" if c["auxk"] else ", no AuxK")
    return f"{c['activation']} {c['n_components']}{aside}"


def groups(rows: Sequence[Row]) -> dict[tuple[str, float], list[dict[str, float]]]:
    """Return the measurements of the seeds by kind and L0 asked for, in the order of the rows, without failed ones."""
    done = [row for row in rows if "result" in row]
    reference = {_cell(row): row["result"]["fvu"] for row in _smallest_topk(done)}
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for row in done:
        over = row["result"]["fvu"] / reference.get(_cell(row), np.nan)
        measured = {**row["result"], **row["fit"], "over_topk": over}
        found.setdefault((kind(row), row["configuration"]["l0"]), []).append(measured)
    return found


def _smallest_topk(rows: Sequence[Row]) -> list[Row]:
    """Return the measured rows of topk with the fewest atoms: P, or 2 P where all non-negative codes have 2 P."""
    topk = [row for row in rows if "result" in row and row["configuration"]["activation"] == "topk"]
    size = min((row["configuration"]["n_components"] for row in topk), default=0)
    return [row for row in topk if row["configuration"]["n_components"] == size]


def _cell(row: Row) -> tuple[Any, ...]:
    return tuple(row["configuration"][name] for name in ("l0", "seed", "scaling", "auxk"))


def summary(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the table of a sweep as text: mean over the seeds, and their range in brackets."""
    table = []
    for (name, l0), seeds in groups(rows).items():
        row = {"": name, "k": f"{l0:g}", "seeds": str(len(seeds)), "L0": _spread(seeds, "l0", ".1f")}
        row |= {"FVU": _spread(seeds, "fvu", ".4f"), "MSE": _spread(seeds, "mse", ".5g")}
        row |= {"loss recovered": _spread(seeds, "loss_recovered", ".4f"), "KL": _spread(seeds, "kl", ".3g")}
        row |= {"dead %": _spread(seeds, "dead_in_training", ".1f", 100), "seconds": _spread(seeds, "seconds", ".0f")}
        table.append(row)
    return table


def failures(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each row that failed."""
    return [f"{row['name']}: {row['error']}" for row in rows if "error" in row]


def _spread(seeds: list[dict[str, float]], quantity: str, form: str, unit: float = 1.0) -> str:
    return mean_and_range([unit * seed[quantity] for seed in seeds], form)


def figure(rows: Sequence[Row]) -> Any:
    """Return the figure: each quantity against the measured L0, a line a kind, the band from least to largest seed."""
    found = groups(rows)
    curves: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for name, _ in found):
        points = [seeds for _, seeds in sorted((l0, s) for (other, l0), s in found.items() if other == name)]
        x = [float(np.mean([seed["l0"] for seed in seeds])) for seeds in points]
        curves[name] = {}
        for quantity in QUANTITIES:
            values = [[seed[quantity] for seed in seeds] for seeds in points]
            curves[name][quantity] = (x, *([reduce(v) for v in values] for reduce in (np.mean, np.min, np.max)))
    known = {quantity for seeds in found.values() for seed in seeds for quantity in seed if np.isfinite(seed[quantity])}
    titles = {name: title for name, title in QUANTITIES.items() if name in known}
    if "over_topk" in known:
        titles["over_topk"] += f" {_smallest_topk(rows)[0]['configuration']['n_components']}"
    return curves_with_ranges(curves, titles, "L0")


def write_page(folder: str | os.PathLike[str], rows: Sequence[Row]) -> Path:
    """Write ``sweep.html`` and ``sweep.png`` of the rows that are finished."""
    folder = Path(folder)
    if groups(rows):
        with replacing(folder / "sweep.png") as temporary:
            figure(rows).savefig(temporary, format="png", dpi=72)
    return write_sections(folder / "sweep.html", title="Sweep", facts=facts(rows), sections=sections(rows))


def facts(rows: Sequence[Row]) -> dict[str, str]:
    """Return what all rows have in common, for the head of a page."""
    source, c = rows[0]["source"], rows[0]["configuration"]
    n_measured = next((row["result"]["n_tokens"] for row in rows if "result" in row), None)  # whole batches of contexts
    measured = "" if n_measured is None else f", {n_measured:,} tokens of other documents measured"
    return {
        "Model": f"{source['model'] or 'SmolLM2-135M (embedded)'}, block {source['block']}",
        "Text": f"{source['text'] or 'embedded Wikipedia'}: {source['n_tokens']:,} tokens harvested{measured}",
        "Training": f"{c['n_steps']:,} steps of {c['batch_size']:,} tokens, learning rate {c['learning_rate']:g}",
        "Rows": f"{sum('result' in row for row in rows)} measured, {sum('error' in row for row in rows)} failed",
    }


def sections(rows: Sequence[Row]) -> list[Section]:
    """Return figure, table, differences and failures, as parts of a page."""
    found = [
        Section(
            "Reconstruction and language model",
            [
                "Lines are means over seeds, bands their range. MSE, FVU, loss recovered and KL are of held-out text. "
                "Dead atoms are used by none of the tokens of the training, or of 32,768 of them where there are more."
            ],
            svg(figure(rows)) if groups(rows) else "",
            summary(rows),
        )
    ]
    for heading, table in (("Differences", comparison_table(rows)), ("What decides", factor_table(rows))):
        if table:
            found.append(Section(heading, [PAIRED], "", table))
    if failed := failures(rows):
        found.append(Section("Failed", failed))
    return found
