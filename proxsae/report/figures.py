"""The figures of the report, as SVG text."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: safe for colour blindness
MARKS = ("o", "s", "^", "D", "v", "P")
POSITIVE, NEGATIVE = "#0072b2", "#d55e00"


def training_curves(histories: dict[str, dict[str, Any]]) -> str:
    """Return FVU, mean L0 and dead atoms against the step, a line a model."""
    figure, axes = blank_figure(1, 3, (11, 3.2))
    panels = (
        ("fvu", "FVU of the batch", "log"),
        ("l0", "mean L0", "linear"),
        ("dead", "dead atoms (fraction)", "linear"),
    )
    for axis, (key, label, scale) in zip(axes, panels, strict=True):
        for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
            axis.plot(history["step"], history[key], color=colour, lw=1.2, label=name)
        axis.set(xlabel="step", title=label, yscale=scale)
        axis.grid(alpha=0.25, lw=0.5)
        if scale == "linear":
            axis.set_ylim(0, max(0.01, 1.05 * max(float(np.max(h[key])) for h in histories.values())))
    axes[0].legend(frameon=False, fontsize=8)
    return svg(figure)


def curves_with_ranges(
    curves: dict[str, dict[str, tuple[Any, Any, Any, Any]]], labels: dict[str, str], x_label: str
) -> Any:
    """Return the figure of several quantities, a panel each, against one: mean as a line, range as a band.

    Parameters
    ----------
    curves : dict of dict
        For each line, for each quantity: x, the mean, the least and the largest of some repetitions, four sequences.
    labels : dict
        The titles of the quantities that have a panel, by name.
    x_label : str
    """
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    columns = min(3, len(labels))
    n_rows = -(-len(labels) // columns)
    legend_rows = -(-len(curves) // columns)
    figure, axes = blank_figure(n_rows, columns, (3.6 * columns, 2.8 * n_rows + 0.2 * (legend_rows + 1)))
    panels = np.atleast_1d(axes).reshape(-1)
    for axis in panels[len(labels) :]:
        axis.remove()
    for axis, (quantity, label) in zip(panels, labels.items(), strict=False):
        for number, (name, line) in enumerate(curves.items()):
            turn, place = divmod(number, len(COLOURS))
            colour, mark = COLOURS[place], MARKS[(place + turn) % len(MARKS)]  # a pair returns after 36 lines
            x, mean, low, high = line[quantity]
            axis.plot(x, mean, color=colour, lw=1.2, marker=mark, ms=4, label=name)
            axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        axis.set(xlabel=x_label, title=label, xscale="log")
        axis.xaxis.set_major_locator(LogLocator(2))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.25, lw=0.5)
    legend = {"loc": "outside lower center", "ncols": columns, "fontsize": 8, "frameon": False}
    figure.legend(*panels[0].get_legend_handles_labels(), **legend)
    return figure


def activation_histogram(activations: Any) -> str:
    """Return the histogram of signed activations on a logarithmic count axis."""
    figure, axis = blank_figure(1, 1, (3.6, 1.5))
    edges = np.linspace(activations.min(), activations.max(), 41)
    for side, colour in ((activations[activations < 0], NEGATIVE), (activations[activations > 0], POSITIVE)):
        axis.hist(side, bins=edges, color=colour)
    axis.axvline(0, color="#888", lw=0.8)
    axis.set_yscale("log")
    axis.set_ylabel("tokens", fontsize=7)
    axis.tick_params(labelsize=7)
    return svg(figure)


def blank_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure and its axes, without the upper and the right spine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns)
    for axis in np.atleast_1d(axes).flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Any) -> str:
    """Return a figure as SVG text, the same for the same figure."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "proxsae"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
