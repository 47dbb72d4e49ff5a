"""The replication: commands that test claims about an activation, one after another, and one page of their results."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxsae.data.files import replacing
from proxsae.report import Section, write_sections
from proxsae.studies.configuration import Configuration
from proxsae.studies.results import read_rows
from proxsae.studies.source import Source
from proxsae.studies.sweep_page import facts, sections

COMPARED = ("topk", "topk:2", "abstopk", "jumprelu", "relu")
NEUTRAL_TOKENS = 256  # on which the damage of a steering is measured


@dataclass(frozen=True)
class Step:
    """A command of the replication.

    Attributes
    ----------
    name : str
        The name of the file of its output, and of the folder of its tables and figures.
    title : str
        The question, for the page.
    arguments : tuple of str
        The arguments of ``proxsae``.
    """

    name: str
    title: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """The line that a user would type."""
        return shlex.join(["proxsae", *self.arguments])


def steps(
    source: Source,
    training: dict[str, float],
    l0: Sequence[float],
    n_seeds: int,
    out: str | os.PathLike[str],
    device: str = "auto",
) -> list[Step]:
    """Return the commands.

    Parameters
    ----------
    source : Source
    training : dict
        ``n_components``, ``n_steps``, ``batch_size`` and ``learning_rate``.
    l0 : sequence of float
        The values of the sweep; the steps after it take the second.
    n_seeds : int
    out : path
        The folder of the replication.
    device : str, default "auto"
        Of the sweep.

    Raises
    ------
    ValueError
        If `l0` is empty.
    """
    if not l0:
        raise ValueError("l0 is empty; give at least one")
    out = Path(out)
    k = l0[min(1, len(l0) - 1)]
    saes = {
        (name, seed): _trained(out, name, k, seed, int(training["n_components"]))
        for name in COMPARED
        for seed in range(n_seeds)
    }
    language = [f"--{name}={value}" for name, value in (("model", source.model), ("text", source.text)) if value]
    language += [f"--field={source.field}"] if source.field != "text" else []
    shared = [*language, f"--block={source.block}", f"--tokens={source.n_tokens}", f"--context={source.context_length}"]
    shared += [f"--heldout-tokens={source.n_heldout}", f"--activations={out / 'activations'}", f"--device={device}"]
    shared += [f"--seeds={n_seeds}", f"--components={training['n_components']}", f"--steps={training['n_steps']}"]
    shared += [f"--batch-size={training['batch_size']}", f"--learning-rate={training['learning_rate']}"]
    levels = ",".join(f"{value:g}" for value in l0)
    curves = ("sweep", f"--regularizers={','.join(COMPARED)}", f"--l0={levels}", *shared, f"--out={out / 'sweep'}")
    # without AuxK nothing changes, to the last digit, where no atom dies
    factors = ("sweep", "--preset=abstopk-paper", "--auxk=yes", f"--l0={k:g}", *shared, f"--out={out / 'factors'}")
    signed, one_sided = saes["abstopk", 0], saes["topk", 0]
    model = [f"--model={source.model}"] if source.model else []
    axes = ("axes", signed, str(out / "activations"), f"--against={one_sided}", *model, f"--out={out / 'axes.html'}")
    steered = [f"{name}={path}" for (name, _), path in saes.items() if name in ("topk", "abstopk", "jumprelu")]
    bench = ("steer-bench", *steered, *language, f"--tokens={NEUTRAL_TOKENS}", f"--out={out / 'steering'}")
    told = ("probe", *saes.values(), f"--activations={out / 'activations'}", f"--out={out / 'probe.csv'}")
    return [
        Step("sweep", "Does it reconstruct better?", curves),
        Step("factors", "What decides the order?", factors),
        Step("axes", "Do the two signs of an atom mean opposite things?", axes),
        Step("steering", "Does it steer better, in both directions?", bench),
        Step("probing", "Do few atoms hold a concept?", told),
    ]


def _trained(out: Path, name: str, l0: float, seed: int, n_components: int) -> str:
    """Return the path at which the sweep saves an autoencoder."""
    activation, _, factor = name.partition(":")
    configuration = Configuration(activation, int(factor or 1) * n_components, l0, seed)
    return str(out / "sweep" / "saes" / f"{configuration.name}.safetensors")


def replicate(todo: Sequence[Step], out: str | os.PathLike[str]) -> Path:
    """Run the steps that are not done, and write ``replication.html`` after each.

    The output of a step that succeeds is kept in a file of its name, which marks the step as done. A step that fails is
    reported on the page, the next step runs, and the failed one is tried again in the next call.

    Parameters
    ----------
    todo : sequence of Step
    out : path
        Folder.

    Returns
    -------
    Path
        The path of the page.
    """
    out = Path(out)
    failed: dict[str, int] = {}
    for step in todo:
        printed = out / f"{step.name}.txt"
        if not printed.exists():
            status, text = _run(step.arguments)
            if status == 130:
                raise KeyboardInterrupt
            if status:
                failed[step.name] = status
            else:
                with replacing(printed) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        page = _write_page(todo, out, failed)
    return page


def _run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command in a new process, and show its output as it comes."""
    command = [sys.executable, "-m", "proxsae", *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:  # noqa: S603
        for line in process.stdout or ():
            print(line, end="", flush=True)  # noqa: T201
            lines.append(line)
    return process.returncode, "".join(lines)


def _write_page(todo: Sequence[Step], out: Path, failed: dict[str, int]) -> Path:
    rows = read_rows(out / "sweep")
    parts = []
    for step in todo:
        printed, folder = out / f"{step.name}.txt", out / step.name
        note = ["Not run yet."] if not printed.exists() else []
        if step.name in failed:
            note = [f"The command ended with exit status {failed[step.name]}; it is tried again the next time."]
        measured = read_rows(folder)
        text = printed.read_text(encoding="utf-8") if printed.exists() and not measured else ""
        figures = [] if measured else [svg.read_text(encoding="utf-8") for svg in sorted(folder.glob("*.svg"))]
        figure = "\n".join(figures)
        parts.append(Section(step.title, note, figure, command=step.command, printed=text))
        parts += sections(measured) if measured else []
    return write_sections(
        out / "replication.html", title="Replication", facts=facts(rows) if rows else {}, sections=parts
    )
