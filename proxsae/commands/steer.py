"""proxsae steer: continuations of a language model with codes of a SAE set by hand."""

from __future__ import annotations

import argparse
from typing import Any

from proxsae.commands.parser import BLOCK, add_command, check_counts


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "steer",
        run,
        "set codes of a SAE by hand and print what the language model says, after what it says by itself",
        'proxsae steer sae.safetensors --atom 12=80 --prompt "The weather today is"',
    )
    command.add_argument("sae", help="model written by proxsae fit, or of any library")
    command.add_argument(
        "--atom", action="append", type=_edit, default=[], metavar="ATOM=VALUE", help="a code to set; may be repeated"
    )
    command.add_argument("--prompt", required=True, help="the text that the model goes on with")
    command.add_argument("--add", action="store_true", help="add the values to the codes (default: clamp them)")
    command.add_argument("--tokens", type=int, default=40, help="to generate (default: 40)")
    command.add_argument("--temperature", type=float, default=0.0, help="of samples (default: 0, greedy)")
    command.add_argument("--seed", type=int, default=0, help="of samples (default: 0)")
    command.add_argument("--model", help="Hugging Face name, folder or .gguf file (default: the embedded SmolLM2-135M)")
    command.add_argument("--block", help=f"{BLOCK} (default: that of the harvest, where the model's file names it)")
    command.add_argument("--any-place", action="store_true", help="even where the SAE is of another model or block")


def _edit(text: str) -> tuple[int, float]:
    atom, _, value = text.partition("=")
    try:
        return int(atom), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no edit such as 12=5") from None


def run(options: argparse.Namespace) -> None:
    """Print the text without an edit, then the steered one."""
    from proxsae.formats import load
    from proxsae.llm import load_model, steer

    atoms = [atom for atom, _ in options.atom]
    if twice := [atom for atom in atoms if atoms.count(atom) > 1]:
        raise ValueError(f"--atom {twice[0]} was given {atoms.count(twice[0])} times; give one value for it")
    check_counts(options, "tokens")
    sae = load(options.sae)
    model = load_model(options.model)
    said = [
        steer(
            model,
            sae,
            edits,
            options.prompt,
            mode="add" if options.add else "clamp",
            n_tokens=options.tokens,
            temperature=options.temperature,
            seed=options.seed,
            block=options.block,
            check_provenance=not options.any_place,
        )
        for edits in ({}, dict(options.atom))
    ]
    edits = ", ".join(f"{value:{'+' if options.add else ''}g} at atom {atom}" for atom, value in options.atom)
    for title, one in zip(("baseline", f"steered: {edits or 'no edit'}"), said, strict=True):
        print(f"{title}\n{options.prompt}{one.text}\n{_mean(one.log_probabilities)}\n")


def _mean(log_probabilities: Any) -> str:
    if not len(log_probabilities):
        return "(ends at once)"
    return f"log p {log_probabilities.mean():.2f} nats a token"
