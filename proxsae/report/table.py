"""The table of results, as text."""

from __future__ import annotations

from typing import Any


def formatted(value: float, form: str) -> str:
    """Return a number in a format such as ``".3g"``, but a large one without exponent, with all its digits."""
    text = f"{value:{form}}"
    return f"{value:.0f}" if "e+" in text else text


def table_row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return one row of the table: column title to text."""
    row = {
        "": name,
        "MSE": formatted(result["mse"], ".5g"),
        "FVU": f"{result['fvu']:.4f}",
        "L0": f"{result['l0']:.1f}",
        "dead %": f"{100 * result['dead_fraction']:.1f}",
        "loss recovered": f"{result['loss_recovered']:.4f}",
        "KL": formatted(result["kl"], ".3g"),
    }
    return row | ({"seconds": f"{result['seconds']:.0f}"} if "seconds" in result else {})


def format_table(table: list[dict[str, Any]]) -> str:
    """Return the rows as aligned text."""
    columns = [[title, *(str(row[title]) for row in table)] for title in table[0]]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
