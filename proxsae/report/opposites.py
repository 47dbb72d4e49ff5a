"""The page of two directions: do the sides of atoms mean opposite things, and which atoms carry pairs of opposites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from proxsae.dictionary.antonyms import PairCode
from proxsae.dictionary.opposites import Opposition
from proxsae.report.features import FeatureCard
from proxsae.report.figures import COLOURS, blank_figure, svg
from proxsae.report.page import Section

# The sign of each measure: 1 where larger numbers mean more opposite sides, -1 where smaller ones do.
MEASURES = {
    "balance": ("two-sided balance", 1),
    "context_cosine": ("cosine of contexts", -1),
    "lens": ("logit lens", 1),
}


def _measures(found: Opposition) -> dict[str, tuple[str, int]]:
    """Return the measures of which there are numbers: without a lens, those without it."""
    return {name: one for name, one in MEASURES.items() if not np.isnan(getattr(found, name)).all()}


def opposition_table(found: Opposition, null: Opposition) -> list[dict[str, str]]:
    """Return the measures of the atoms beside those of the null, a row each.

    The last column is the share of the atoms that are more opposite than 95 % of the null; 5 % are by chance.
    """
    table = []
    for name, (title, sign) in _measures(found).items():
        values, by_chance = (sign * np.asarray(getattr(one, name)) for one in (found, null))
        beyond = float((values > np.quantile(by_chance, 0.95)).mean())
        table.append(
            {"": title, "atoms: median": _number(sign * np.median(values))}
            | {"5 % to 95 %": _range(sign * values), "null: median": _number(sign * np.median(by_chance))}
            | {"5 % to 95 % ": _range(sign * by_chance), "beyond 95 % of the null": f"{100 * beyond:.1f} %"}
        )
    return table


def opposition_section(found: Opposition, null: Opposition, n_atoms: int, null_name: str) -> Section:
    """Return the section of the measures, with their definitions and distributions."""
    measures = _measures(found)
    figure, axes = blank_figure(1, len(measures), (11, 2.8))
    for axis, (name, (title, _)) in zip(axes, measures.items(), strict=True):
        values, by_chance = (np.asarray(getattr(one, name)) for one in (found, null))
        low, high = np.quantile(np.concatenate([values, by_chance]), [0.005, 0.995])
        edges = np.linspace(low, high, 41)
        for one, colour, label in ((by_chance, "#888888", "null"), (values, COLOURS[0], "atoms")):
            axis.hist(one, bins=edges, density=True, histtype="step", color=colour, lw=1.6, label=label)
        axis.set(title=title, yticks=[])
    axes[0].legend(frameon=False, fontsize=8)
    text = [
        f"{len(found.axes):,} of {n_atoms:,} atoms fire often enough on both sides to be counted. The null is "
        f"{null_name}: {len(null.axes):,} axes whose two sides have nothing to do with one another.",
        "Balance: 2 min(n+, n-) / (n+ + n-). Cosine of contexts: between the mean activations of the tokens on "
        "either side, without the mean of all tokens and without what the atom itself adds; -1 is opposite.",
        "Logit lens: are the tokens that follow the + side those that +d promotes, and those that follow the - side "
        "those that -d promotes? In standard deviations, the smaller of the two sides."
        if "lens" in measures
        else "No logit lens: it is for atoms of the residual stream, or of what attention or an MLP adds to it.",
    ]
    return Section("Do the two sides mean opposite things?", text, svg(figure), opposition_table(found, null))


def pairs_summary(codes: list[PairCode]) -> dict[str, str]:
    """Return the summary of all pairs, as cells of a table."""
    needed = [code.n_half if code.n_half is not None else np.inf for code in codes]
    shares = np.array([code.explained[:2] for code in codes])
    return {
        "one atom with opposite signs": f"{sum(code.atom is not None for code in codes)} of {len(codes)}",
        "difference explained by 1 atom": f"{100 * np.median(shares[:, 0]):.0f} %",
        "by 2": f"{100 * np.median(shares[:, 1]):.0f} %",
        "atoms for half of it": f"{median:g}" if np.isfinite(median := np.median(needed)) else "not reached",
    }


def pairs_section(names: dict[str, list[PairCode]], nulls: dict[str, list[PairCode]], notes: list[str]) -> Section:
    """Return how many pairs one atom carries, for each autoencoder, beside pairs that are no opposites."""
    table = [
        {"": f"{name}{kind}"} | pairs_summary(codes)
        for name in names
        for kind, codes in (("", names[name]), (", words paired at random", nulls[name]))
    ]
    text = [
        "Each word is read at the end of eight neutral sentences. One atom carries a pair if it is positive on one "
        "word and negative on the other, each in at least half of the sentences; codes of one sign never do. The "
        "difference of the two mean activations is rebuilt from the atoms whose codes differ most; medians over pairs. "
        "Half of it is not reached where all the atoms that are counted, at most 64 of a pair, explain less.",
        *notes,
    ]
    return Section("Which atoms carry pairs of opposites?", text, "", table)


def pair_table(pairs: Sequence[tuple[str, str]], names: dict[str, list[PairCode]]) -> Section:
    """Return a row for each pair: the atom with opposite signs, and how many atoms half of the difference takes."""
    table = []
    for number, (a, b) in enumerate(pairs):
        row = {"": f"{a} / {b}"}
        for name, codes in names.items():
            code = codes[number]
            row[f"{name}: atom"] = "-" if code.atom is None else f"{'+' if code.sign > 0 else '-'}{code.atom}"
            row[f"{name}: 1 atom explains"] = f"{100 * code.explained[0]:.0f} %"
            row[f"{name}: atoms for half"] = (
                f"more than {len(code.explained)}" if code.n_half is None else str(code.n_half)
            )
        table.append(row)
    return Section("Each pair", ["The sign of an atom is that of its code on the first word."], "", table)


def card_sections(best: list[FeatureCard], typical: list[FeatureCard], of_pairs: list[FeatureCard]) -> list[Section]:
    """Return the cards of the best and the typical atoms, where a lens tells them, and of the found ones."""
    by_lens = [
        Section("The best atoms", ["Of all counted, those whose weaker side has the largest lens score."], cards=best),
        Section("Typical atoms", ["Those around the median of the same score."], cards=typical),
    ]
    carrying = ["The first that were found."] if of_pairs else ["None."]
    return [*(by_lens if best else []), Section("Atoms that carry pairs", carrying, cards=of_pairs)]


def _number(value: float) -> str:
    return f"{value + 0.0:.3f}"


def _range(values: Any) -> str:
    low, high = np.quantile(values, [0.05, 0.95])
    return f"{low:.3f} to {high:.3f}"
