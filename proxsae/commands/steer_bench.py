"""proxsae steer-bench: how far SAEs steer concepts, at what damage."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsae.commands.parser import BLOCK, add_command, add_model, check_counts

if TYPE_CHECKING:
    from proxsae.llm.concepts import Axis

DAMAGES = (0.1, 0.3)
FILE = "steering.json"


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "steer-bench",
        run,
        "steer concepts in both directions by atoms of SAEs, and measure the shift at fixed damage",
        "proxsae steer-bench TopK=topk-0.safetensors TopK=topk-1.safetensors AbsTopK=abstopk-0.safetensors --out bench",
    )
    models = "models; those of one NAME are seeds of one method (default NAME: the path)"
    command.add_argument("saes", nargs="+", metavar="[NAME=]SAE", help=models)
    add_model(command)
    command.add_argument("--block", help=f"{BLOCK} (default: that of the harvest, where the model's file names it)")
    command.add_argument("--any-place", action="store_true", help="even where a SAE comes from another model or block")
    command.add_argument("--axes", type=Path, help="folder of axes, a .json file each (default: those of the package)")
    command.add_argument("--only", nargs="+", default=[], metavar="AXIS", help="these axes alone")
    command.add_argument("--tokens", type=int, default=512, help="of neutral text (default: 512)")
    command.add_argument("--seed", type=int, default=0, help="of the halves and of what is random (default: 0)")
    command.add_argument("--out", type=Path, required=True, help="folder of the tables and the figure")


def run(options: argparse.Namespace) -> None:
    """Run the benchmark, write its files after every axis, print the tables; run again, it goes on where it stopped."""
    from proxsae.data.outputs import check_output
    from proxsae.formats import load
    from proxsae.llm import load_model
    from proxsae.llm.concepts import FOLDER, read_axes
    from proxsae.llm.steer_bench import steer_bench

    check_counts(options, "tokens")
    check_output(options.out / FILE, options.axes)
    axes = read_axes(options.axes or FOLDER)
    contents = {axis.name: hashlib.blake2b(repr(axis).encode(), digest_size=8).hexdigest() for axis in axes}
    axes = chosen(axes, options.only)
    paths = _paths(options.saes)
    saes = {name: [load(path) for path in several] for name, several in paths.items()}
    settings = {name: str(getattr(options, name)) for name in ("model", "text", "field", "block", "tokens", "seed")}
    settings |= {f"{name} {i}": _digest(sae) for name, several in saes.items() for i, sae in enumerate(several)}
    done = _done(options.out / FILE, settings, contents)
    made_from = {"saes": paths, "settings": settings, "contents": (done["contents"] if done else {}) | contents}
    results = steer_bench(
        load_model(options.model),
        saes,
        axes=axes,
        text=options.text,
        neutral_tokens=options.tokens,
        most_damage=max(DAMAGES),
        block=options.block,
        seed=options.seed,
        check_provenance=not options.any_place,
        each_axis=lambda so_far: _write(options.out, so_far | made_from),
        done=done,
    )
    asked = {axis.name for axis in axes}
    _print({name: [row for row in results[name] if row["axis"] in asked] for name in ("axes", "rows")})
    held = "tables and figure" if results["rows"] else "no axis is kept, hence no tables and figure"
    print(f"{held}: {options.out.resolve()}")


def chosen(axes: list[Axis], only: Sequence[str]) -> list[Axis]:
    """Return the axes of these names, or all where no name is given.

    Raises
    ------
    ValueError
        If no axis has one of the names.
    """
    if unknown := set(only) - {axis.name for axis in axes}:
        raise ValueError(f"no axis is called {', '.join(sorted(unknown))}; there are {', '.join(a.name for a in axes)}")
    return [axis for axis in axes if axis.name in only] if only else axes


def _paths(saes: list[str]) -> dict[str, list[str]]:
    """Return the paths by the name before the '=', or by the path itself where there is none, as evaluate names them.

    Raises
    ------
    ValueError
        If nothing stands before the '='.
    """
    paths: dict[str, list[str]] = {}
    for given in saes:
        name, equals, path = given.partition("=")
        if equals and not name:
            raise ValueError(f"{given} has no name before the '='; give a name or the path alone")
        paths.setdefault(name, []).append(path if equals else given)
    return paths


def _digest(sae: Any) -> str:
    """Return a text that differs for SAEs whose results differ."""
    from proxsae.formulas.arrays import to_numpy

    encoder = sae.encoder_
    R = getattr(encoder, "current_regularizer", None)
    found = hashlib.blake2b(f"{encoder!r} {R} {sae.provenance_.get('site')}".encode(), digest_size=8)
    for array in (sae.components_, sae.intercept_, *encoder.state_dict().values()):
        found.update(to_numpy(array).tobytes())
    return found.hexdigest()


def _done(path: Path, settings: dict[str, str], contents: dict[str, str]) -> dict[str, Any] | None:
    """Return the axes of an earlier run with the same settings, and the digests of their contents.

    An axis whose file has changed since, or which has no digest, is run again.

    Raises
    ------
    ValueError
        If the file is no benchmark, or one of other SAEs or settings.
    """
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        before, known = held["settings"], held.get("contents", {})
        changed = {name for name, digest in contents.items() if known.get(name) != digest}
        done = {name: [row for row in held[name] if row["axis"] not in changed] for name in ("axes", "rows")}
        done["contents"] = known
        differing = [name for name in before | settings if before.get(name) != settings.get(name)]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"'{path}' is no result of steer-bench; give another folder") from None
    if differing:
        raise ValueError(
            f"'{path}' is of other SAEs or settings ({', '.join(differing)}); give another folder, or delete the file"
        )
    return done


def _write(folder: Path, results: dict[str, Any]) -> None:
    """Write all rows as JSON, and where there are any, their means and the summary as CSV, and the figure."""
    import numpy as np

    from proxsae.data.files import replacing
    from proxsae.llm.steer_bench import differences, summarise
    from proxsae.report.figures import svg
    from proxsae.report.steering import steering_figure

    rows = results["rows"]
    summary = summarise(rows, DAMAGES)
    compared = [row for damage in DAMAGES for row in differences(rows, damage)]
    with replacing(folder / FILE) as path:
        path.write_text(json.dumps(results | {"summary": summary, "differences": compared}), encoding="utf-8")
    if not rows:
        return
    means = [
        {name: value for name, value in row.items() if name != "shifts"} | {"shift": float(np.mean(row["shifts"]))}
        for row in rows
    ]
    for name, table in (("steering", means), ("summary", summary), ("differences", compared)):
        with replacing(folder / f"{name}.csv") as path, path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    figure = steering_figure(rows, max(DAMAGES))
    with replacing(folder / "steering.svg") as path:
        path.write_text(svg(figure), encoding="utf-8")
    with replacing(folder / "steering.png") as path:
        figure.savefig(path, format="png", dpi=110)


def _print(results: dict[str, Any]) -> None:
    from proxsae.llm.steer_bench import summarise
    from proxsae.llm.steer_bench.summary import ALL
    from proxsae.report import format_table

    for axis in results["axes"]:
        told = f"{axis['axis']} ({axis['a']} / {axis['b']}): {100 * axis['separated']:.0f} % of {axis['templates']}"
        told += f" templates tell the sides apart, gap {axis['gap']:.2f} nats"
        told += "" if axis["kept"] else "; left out"
        words = ", ".join(map(repr, axis["multi_token"]))
        print(told + (f"; by their first token: {words}" if words else ""))
    if not results["rows"]:
        return
    summary = summarise(results["rows"], DAMAGES)
    for damage in DAMAGES:
        print(f"\nshift at KL {damage:g}, as a share of the gap, mean over axes")
        of_all = [row for row in summary if row["damage"] == damage and row["axis"] == ALL]
        table = []
        for weaker in sorted((r for r in of_all if r["direction"] == "weaker"), key=lambda row: -row["share"]):
            same = {r["direction"]: r for r in of_all if all(r[k] == weaker[k] for k in ("method", "variant"))}
            table.append(
                {"": weaker["method"] + (f", {weaker['variant']}" if weaker["variant"] != "direction" else "")}
                | {f"to {side}": f"{same[side]['share']:.3f}" for side in "ab"}
                | {"weaker": f"{weaker['share']:.3f}", "95 %": f"{weaker['low']:.3f} to {weaker['high']:.3f}"}
                | {"seeds": f"{weaker['seed_low']:.3f} to {weaker['seed_high']:.3f}"}
            )
        print(format_table(table))
