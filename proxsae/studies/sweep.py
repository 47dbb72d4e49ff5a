"""The sweep: many autoencoders on the same activations, each measured on the same held-out text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proxsae.data.files import check_writable
from proxsae.estimator import ProxSAE
from proxsae.formulas.integers import evenly_spaced
from proxsae.metrics import codes_of
from proxsae.studies.configuration import Configuration
from proxsae.studies.results import Results, Row, is_finished
from proxsae.studies.source import Source
from proxsae.studies.standardised import StandardisedRows

if TYPE_CHECKING:
    from proxsae.data.store import ActivationStore

EVALUATED_AT_ONCE = 8  # autoencoders that share a clean pass of the language model
N_FOR_DEAD = 32_768  # rows of the training among which an atom has to be used


def sweep(
    configurations: Sequence[Configuration],
    source: Source,
    out: str | os.PathLike[str],
    *,
    activations: str | os.PathLike[str] | None = None,
    device: str = "auto",
    verbose: bool = True,
) -> list[Row]:
    """Train and measure autoencoders that differ in their regularizer, L0, size, seed or scaling, and in nothing else.

    The language model is harvested once, and the clean pass over the held-out text is shared. A sweep that was killed
    goes on, when called again, with the rows that are not finished, and makes a row again whose autoencoder is missing;
    a row that failed stands in the table with its reason, and is not tried again while its file exists.

    Parameters
    ----------
    configurations : sequence of Configuration
        From :func:`proxsae.studies.grid`, or one by one; of one ``n_steps``, ``batch_size`` and ``learning_rate``.
    source : Source
        Model, place and text.
    out : path
        A folder: a file a row in ``rows``, the autoencoders in ``saes``, and ``sweep.csv`` and ``sweep.json`` of all
        rows that are finished, also of earlier calls.
    activations : path, optional
        Folder of the harvest, which may exist already; by default inside `out`.
    device : str, default "auto"
        The device of the language model and the autoencoders.
    verbose : bool, default True
        Print a line a row to the standard error stream.

    Returns
    -------
    list of dict
        For each row in the order asked for ``name``, ``configuration``, ``source``, and either ``error``, a sentence,
        or ``fit`` and ``result``:

        - ``seconds``: wall time of the training;
        - ``dead_in_training``: the fraction of atoms that no row of the training uses, or none of 32,768 where there
          are more;
        - all that :func:`proxsae.llm.evaluate` measures on the held-out text.

    Raises
    ------
    ValueError
        If an L0 is above the number of atoms, the trainings differ, or `out` holds a row of another training or source,
        or of the same name with another configuration.
    """
    for c in configurations:
        if c.l0 > c.n_components:
            raise ValueError(f"l0 must be at most n_components = {c.n_components} for {c.activation}, got {c.l0:g}")
    results = Results(out, source)
    check_writable(results.folder / "sweep.csv")
    rows = [results.row(configuration) for configuration in configurations]
    results.check(configurations)
    todo = [c for c, row in zip(configurations, rows, strict=True) if not is_finished(row)]
    if todo:
        model = source.load(device)
        folder = Path(out) / "activations" if activations is None else activations
        parts = source.harvest(model, folder, verbose=verbose)
        for at in range(0, len(todo), EVALUATED_AT_ONCE):
            some = todo[at : at + EVALUATED_AT_ONCE]
            for row in _measured(dict(_trained(some, parts, results, device)), results, model):
                results.write(row)
                if verbose:
                    print(_line(row), file=sys.stderr, flush=True)  # noqa: T201
            results.write_table()
    results.write_table()
    return [results.row(configuration) for configuration in configurations]


def _trained(
    configurations: Sequence[Configuration],
    parts: tuple[ActivationStore, ActivationStore],
    results: Results,
    device: str,
) -> Iterator[tuple[Configuration, Any]]:
    """Yield the autoencoders, and the exception of those that could not be trained."""
    for configuration in configurations:
        row, path = results.row(configuration), results.model_path(configuration)
        if "fit" in row:
            sae = ProxSAE.load(path).set_params(device=device)
        else:
            try:
                sae, row["fit"] = train(configuration, *parts, device=device)
            except (ValueError, FloatingPointError) as error:
                yield configuration, error
                continue
            sae.save(path)
            results.write(row)
        yield configuration, sae


def train(
    configuration: Configuration, seen: ActivationStore, unseen: ActivationStore, *, device: str = "auto"
) -> tuple[ProxSAE, dict[str, float]]:
    """Return the autoencoder of a row, and the measurements of its training.

    Parameters
    ----------
    configuration : Configuration
    seen : activation store
        Rows to train on.
    unseen : activation store
        Rows on which a steered weight is set after the training: codes of rows that were seen often are sparser than
        those of new rows.
    device : str, default "auto"

    Raises
    ------
    ValueError
        If the L0 is out of reach.
    """
    X, other = (StandardisedRows(rows) if configuration.scaling == "token" else rows for rows in (seen, unseen))
    started = time.perf_counter()
    sae = ProxSAE(device=device, **configuration.parameters()).fit(X)
    if sae.n_iter_ < configuration.n_steps:
        raise KeyboardInterrupt
    if not configuration.is_counted:
        sae.calibrate(other)
    seconds = time.perf_counter() - started
    used = codes_of(sae, X[evenly_spaced(len(X), N_FOR_DEAD)]).getnnz(axis=0)
    return sae, {"seconds": seconds, "dead_in_training": float(np.mean(used == 0))}


def _measured(saes: dict[Configuration, Any], results: Results, model: Any) -> Iterator[Row]:
    """Yield finished rows: all measured in one pass over the text; one by one only where that fails."""
    failed = {c: error for c, error in saes.items() if isinstance(error, Exception)}
    fitted = {c.name: sae for c, sae in saes.items() if c not in failed}
    try:
        found: dict[str, Any] = results.source.evaluate(model, fitted) if fitted else {}
    except ValueError as error:
        if len(saes) > 1:
            for one in saes.items():
                yield from _measured(dict([one]), results, model)
            return
        failed, found = dict.fromkeys(saes, error), {}
    for configuration in saes:
        row = results.row(configuration)
        if configuration in failed:
            yield {**row, "error": " ".join(str(failed[configuration]).split())}
        else:
            yield {**row, "result": found[configuration.name]}


def _line(row: Row) -> str:
    if "error" in row:
        return f"{row['name']}: {row['error']}"
    told = {**row["fit"], **row["result"]}
    return (
        f"{row['name']}: FVU {told['fvu']:.4f}, loss recovered {told['loss_recovered']:.4f}, L0 {told['l0']:.1f}, "
        f"{100 * told['dead_in_training']:.1f} % dead, {told['seconds']:.0f} s"
    )
