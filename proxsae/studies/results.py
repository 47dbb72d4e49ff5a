"""The folder of a sweep: a file a row, the autoencoders, and the table of all rows as CSV and JSON."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from proxsae.data.files import replacing
from proxsae.studies.configuration import Configuration
from proxsae.studies.source import Source

Row = dict[str, Any]  # name, configuration, source, and what there is of fit, result and error
SHARED = ("n_steps", "batch_size", "learning_rate")  # by the rows of a folder, since no name tells them
ROWS_FAILED = 3  # the exit status of a sweep that ended, with rows that failed


class Results:
    """The finished rows of a sweep, each in its own file, written whole: a sweep may be killed at any time.

    Parameters
    ----------
    folder : path
    source : Source
        The source of every row.

    Raises
    ------
    ValueError
        Where a row that is there was made with another configuration, training or source, or its file is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], source: Source) -> None:
        self.folder, self.source = Path(folder), source

    def row(self, configuration: Configuration) -> Row:
        """Return the row of a configuration, as far as it is finished; without its autoencoder it is not begun."""
        path = self._path(configuration.name)
        new = {"name": configuration.name, "configuration": asdict(configuration), "source": self.source.as_dict()}
        if not path.exists():
            return new
        row = read_row(path)
        self._check(row, asdict(configuration))
        return row if "error" in row or self.model_path(configuration).exists() else new

    def check(self, configurations: Sequence[Configuration]) -> None:
        """Raise ValueError unless rows of these configurations may stand in one table, and with those finished."""
        trainings = sorted({tuple(getattr(c, name) for name in SHARED) for c in configurations})
        if len(trainings) > 1:
            raise ValueError(
                f"all rows of a sweep have one {', '.join(SHARED)}; got {' and '.join(map(str, trainings))}: "
                "give a folder for each"
            )
        for row, training in product(read_rows(self.folder), trainings):
            self._check(row, dict(zip(SHARED, training, strict=True)))

    def _check(self, row: Row, configuration: dict[str, Any]) -> None:
        for part, asked in (("configuration", configuration), ("source", self.source.as_dict())):
            for name, value in asked.items():
                if row[part].get(name) != value:
                    raise ValueError(
                        f"'{self._path(row['name'])}' was made with {name} = {row[part].get(name)!r}, and {value!r} is "
                        "asked for: give another folder"
                    )

    def write(self, row: Row) -> None:
        """Write a row."""
        with replacing(self._path(row["name"])) as temporary:
            temporary.write_text(json.dumps(row, indent=1), encoding="utf-8")

    def model_path(self, configuration: Configuration) -> Path:
        """Return where the autoencoder of a row is."""
        return self.folder / "saes" / f"{configuration.name}.safetensors"

    def _path(self, name: str) -> Path:
        return self.folder / "rows" / f"{name}.json"

    def write_table(self) -> None:
        """Write all finished rows of the folder as ``sweep.csv``, a column a quantity, and ``sweep.json``."""
        rows = read_rows(self.folder)
        flat = [flattened(row) for row in rows]
        columns = list(dict.fromkeys(name for row in flat for name in row))
        with replacing(self.folder / "sweep.csv") as temporary, temporary.open("w", newline="") as stream:
            table = csv.DictWriter(stream, columns)
            table.writeheader()
            table.writerows(flat)
        with replacing(self.folder / "sweep.json") as temporary:
            temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def is_finished(row: Row) -> bool:
    """Whether a row has been measured, or cannot be."""
    return "result" in row or "error" in row


def flattened(row: Row) -> dict[str, Any]:
    """Return a row as one flat dict, as a table has it."""
    flat = {"name": row["name"], **row["configuration"], **row.get("fit", {}), **row.get("result", {})}
    # what was asked for is not what was measured
    flat["target_l0"] = row["configuration"]["l0"]
    if "result" not in row:
        del flat["l0"]
    return {**flat, "error": row.get("error", "")}


def read_row(path: str | os.PathLike[str]) -> Row:
    """Return the row of a file.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is not the file of a row.
    """
    try:
        row: Row = json.loads(Path(path).read_text(encoding="utf-8"))
        Configuration(**row["configuration"])
        Source(**row["source"])
        row["name"]
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {path}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"'{path}' is not a row of a sweep: {error}") from error
    return row


def read_rows(folder: str | os.PathLike[str]) -> list[Row]:
    """Return the finished rows of a sweep, in the order of their configurations: activation, atoms, L0, seed ..."""
    rows = [read_row(path) for path in (Path(folder) / "rows").glob("*.json")]
    return sorted(filter(is_finished, rows), key=lambda row: tuple(row["configuration"].values()))
