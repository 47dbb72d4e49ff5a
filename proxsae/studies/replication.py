"""The replication: commands that test claims about an activation, one after another, and one page of their results."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxsae.data.files import replacing
from proxsae.report import Section, write_sections
from proxsae.studies.configuration import Configuration
from proxsae.studies.results import ROWS_FAILED, read_rows
from proxsae.studies.source import Source
from proxsae.studies.sweep_page import facts, sections

COMPARED = ("topk", "topk:2", "abstopk", "jumprelu", "relu")
NEUTRAL_TOKENS = 256  # on which the damage of a steering is measured
ENDS_BY_ITSELF = 4  # seconds until an interrupted command gets SIGTERM; Docker kills everything after 10


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
    saes : tuple of str, default ()
        The paths of the autoencoders of the sweep that it reads.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    saes: tuple[str, ...] = ()

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
    only: Sequence[str] = (),
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
    only : sequence of str, default ()
        The axes to steer, if not all.

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
    steered = [(name, path) for (name, _), path in saes.items() if name in ("topk", "abstopk", "jumprelu")]
    named = [f"{name}={path}" for name, path in steered]
    chosen = ["--only", *only] if only else []
    bench = ("steer-bench", *named, *language, *chosen, f"--tokens={NEUTRAL_TOKENS}", f"--out={out / 'steering'}")
    told = ("probe", *saes.values(), f"--activations={out / 'activations'}", f"--out={out / 'probe.csv'}")
    return [
        Step("sweep", "Does it reconstruct better?", curves),
        Step("factors", "What decides the order?", factors),
        Step("axes", "Do the two signs of an atom mean opposite things?", axes, (signed, one_sided)),
        Step("steering", "Does it steer better, in both directions?", bench, tuple(path for _, path in steered)),
        Step("probing", "Do few atoms hold a concept?", told, tuple(saes.values())),
    ]


def _trained(out: Path, name: str, l0: float, seed: int, n_components: int) -> str:
    """Return the path at which the sweep saves an autoencoder."""
    activation, _, factor = name.partition(":")
    configuration = Configuration(activation, int(factor or 1) * n_components, l0, seed)
    return str(out / "sweep" / "saes" / f"{configuration.name}.safetensors")


def replicate(todo: Sequence[Step], out: str | os.PathLike[str]) -> list[str]:
    """Run the steps that are not done, and write ``replication.html`` after each.

    The command and the output of a step that succeeds are kept in a file of its name, which marks the step as done, and
    so is a sweep of which rows failed: the page says which, and no later call would do better. A step that fails
    is reported on the page, the next step runs, and the failed one is tried again in the next call; a step that reads
    autoencoders which the sweep has not made is left out until they are there, and the sweep, if it is among the steps,
    runs again to make those whose rows have not failed. The folder may have been moved since, and the device be
    another.

    Parameters
    ----------
    todo : sequence of Step
    out : path
        Folder.

    Returns
    -------
    list of str
        The names of the steps that failed or were left out.

    Raises
    ------
    ValueError
        If a step was done with other arguments.
    """
    out = Path(out)
    needed = [Path(path) for step in todo if _printed(step, out) is None for path in step.saes]
    failed = {row["name"] for row in read_rows(out / "sweep") if "error" in row}
    missing = any(path.stem not in failed and not path.exists() for path in needed)
    if missing and "sweep" in {step.name for step in todo}:
        (out / "sweep.txt").unlink(missing_ok=True)
    not_done: dict[str, str] = {}
    for step in todo:
        if _printed(step, out) is None and (reason := _run_step(step, out)):
            not_done[step.name] = reason
        _write_page(todo, out, not_done)
    return list(not_done)


def _printed(step: Step, out: Path) -> str | None:
    """Return the output of a step that is done, and None of one that is not.

    Raises
    ------
    ValueError
        If it was done with other arguments.
    """
    path = out / f"{step.name}.txt"
    if not path.exists():
        return None
    command, _, text = path.read_text(encoding="utf-8").partition("\n")
    if not command.startswith("proxsae "):
        raise ValueError(f"'{path}' does not begin with the command that made it: give another folder")
    before, asked = _compared(command), _compared(step.command)
    if before != asked:
        made = shlex.join(word for word in before if word not in asked) or command
        given = shlex.join(word for word in asked if word not in before) or step.command
        raise ValueError(f"'{path}' was made with {made}, and {given} is asked for: give another folder")
    return text


def _compared(command: str) -> list[str]:
    """Return the words of a command without the device, and its own paths from the folder of the replication."""
    words = [word for word in shlex.split(command) if not word.startswith("--device=")]
    out = next((word.removeprefix("--out=") for word in words if word.startswith("--out=")), "")
    folder, of_user = re.escape(str(Path(out).parent)), ("--model=", "--text=")
    return [word if word.startswith(of_user) else re.sub(f"(^|=){folder}/", r"\1", word) for word in words]


def _run_step(step: Step, out: Path) -> str:
    """Run a step and keep its output, or return a sentence that says why it is not done."""
    for path in step.saes:
        if not Path(path).exists():
            return f"Not run: the sweep has not made {path}."
    status, text = _run(step.arguments)
    if status == 130:
        raise KeyboardInterrupt
    if status not in (0, ROWS_FAILED):
        return f"The command ended with exit status {status}; it is tried again the next time."
    with replacing(out / f"{step.name}.txt") as temporary:
        temporary.write_text(f"{step.command}\n{text}", encoding="utf-8")
    return ""


def _run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command in a new process, which ends with this function, and show its output as it comes."""
    command = [sys.executable, "-m", "proxsae", *arguments]
    lines = []
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)  # noqa: T201
                lines.append(line)
            process.wait()
        except KeyboardInterrupt:
            try:  # a signal to the group, or Ctrl-C in a terminal, has reached the command, too
                process.communicate(timeout=ENDS_BY_ITSELF)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.communicate()  # a second KeyboardInterrupt does not wait until it has cleared its files away
            raise
        finally:
            process.terminate()  # unless it has ended
    return process.returncode, "".join(lines)


def _write_page(todo: Sequence[Step], out: Path, not_done: dict[str, str]) -> None:
    rows = read_rows(out / "sweep")
    parts = []
    for step in todo:
        printed, folder = _printed(step, out), out / step.name
        note = [not_done.get(step.name, "Not run yet.")] if printed is None else []
        measured = read_rows(folder)
        figures = [] if measured else [svg.read_text(encoding="utf-8") for svg in sorted(folder.glob("*.svg"))]
        figure = "\n".join(figures)
        text = "" if measured else printed or ""
        parts.append(Section(step.title, note, figure, command=step.command, printed=text))
        parts += sections(measured) if measured else []
    write_sections(out / "replication.html", title="Replication", facts=facts(rows) if rows else {}, sections=parts)
