"""The command line: proxsae demo | harvest | fit | evaluate | report | convert | verify | prove."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BLOCK = 'blocks before the residual stream is read, such as 15, or another place: "mlp_out.15", "attn_out.15", "embed"'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; a mistake of the user is one line on standard error."""
    options = build_parser().parse_args(arguments)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"proxsae {options.command}: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            status = options.run(options)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"proxsae {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"proxsae {options.command}: interrupted", file=sys.stderr)
        return 130
    return int(status or 0)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="proxsae", description="Sparse autoencoders with the regularizer you specify."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = _command(
        commands,
        "demo",
        run_demo_command,
        "train four SAEs on SmolLM2-135M and write a report",
        "proxsae demo --fast --out report.html",
    )
    demo.add_argument("--fast", action="store_true", help="a small run, under 90 seconds")
    demo.add_argument("--out", type=Path, default=Path("report.html"), help="the report (default: report.html)")
    demo.add_argument("--folder", type=Path, default=Path("proxsae-demo"), help="activations and models go here")

    harvest = _command(
        commands,
        "harvest",
        run_harvest,
        "write activations of a language model to disk",
        "proxsae harvest --text notes.txt --block 15 --tokens 100000 --out activations",
    )
    _add_model(harvest)
    harvest.add_argument("--block", required=True, help=_BLOCK)
    harvest.add_argument("--tokens", type=int, required=True, help="rows to store")
    harvest.add_argument("--context", type=int, default=128, help="tokens in a context (default: 128)")
    harvest.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    harvest.add_argument("--out", type=Path, required=True, help="folder of the activation store")

    fit = _command(
        commands,
        "fit",
        run_fit,
        "train a sparse autoencoder on an activation store or a .npy file",
        'proxsae fit activations -R "L1 + NonNegative" --target-l0 32 --out sae.safetensors',
    )
    fit.add_argument("data", type=Path, help="activation store, or .npy array (n_samples, n_features)")
    fit.add_argument("-R", "--regularizer", required=True, help='such as "Cardinality(32)"')
    fit.add_argument("--components", type=int, help="number of atoms (default: 8 times the features)")
    fit.add_argument("--target-l0", type=float, help="steer the weight of R to this mean number of non-zeros")
    fit.add_argument("--steps", type=int, default=1000)
    fit.add_argument("--batch-size", type=int, default=2048)
    fit.add_argument("--learning-rate", type=float, help="peak step size of Adam")
    fit.add_argument("--seed", type=int, default=0)
    fit.add_argument("--checkpoint", type=Path, metavar="DIR", help="keep the last two checkpoints in this folder")
    fit.add_argument("--checkpoint-every", type=int, default=100, help="steps between two of them (default: 100)")
    fit.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in DIR")
    fit.add_argument("--out", type=Path, required=True, help="the trained model, .safetensors")

    evaluate = _command(
        commands,
        "evaluate",
        run_evaluate,
        "measure trained SAEs inside the language model",
        "proxsae evaluate sae.safetensors --block 15 --tokens 8192",
    )
    evaluate.add_argument("saes", nargs="+", help="models written by proxsae fit, or of any library")
    _add_model(evaluate)
    evaluate.add_argument("--block", help=f"{_BLOCK} (default: that of the harvest, where the model's file names it)")
    evaluate.add_argument("--any-place", action="store_true", help="even where a SAE comes from another model or block")
    evaluate.add_argument("--tokens", type=int, default=8192)
    evaluate.add_argument("--context", type=int, help="tokens in a context (default: as in the harvest, or 128)")
    evaluate.add_argument("--split", choices=["heldout", "train", "all"], default="heldout")

    report = _command(
        commands,
        "report",
        run_report,
        "write the feature cards of a trained SAE",
        "proxsae report sae.safetensors activations --out report.html",
    )
    report.add_argument("sae", help="model written by proxsae fit, or of any library")
    report.add_argument("store", type=Path, help="activation store; its tokens are the examples shown")
    report.add_argument("--model", help="language model whose tokenizer prints the tokens (default: that of the store)")
    report.add_argument("--features", type=int, default=24, help="how many cards (default: 24)")
    report.add_argument("--out", type=Path, default=Path("report.html"))

    convert = _command(
        commands,
        "convert",
        run_convert,
        "read a sparse autoencoder of any library and write it for another",
        "proxsae convert sae.safetensors gpt2-sae --format saelens",
    )
    convert.add_argument("source", metavar="IN", help="a file, a folder, or hf://user/repository/path")
    convert.add_argument("out", metavar="OUT", type=Path, help="the file or folder to write")
    convert.add_argument("--format", required=True, help="of OUT, such as saelens; proxsae is ours")
    convert.add_argument("--from", dest="source_format", default="auto", help="of IN (default: by its files)")
    convert.add_argument("-R", "--regularizer", help="of IN, where its file cannot say it, such as 0.1*L1+NonNegative")
    convert.add_argument(
        "--signed",
        choices=["double", "native"],
        default="double",
        help="signed codes as pairs of non-negative ones, or as AbsTopK where the format has it (default: double)",
    )

    verify = _command(
        commands,
        "verify",
        run_verify,
        "check the proximal operator of a regularizer by every oracle that applies",
        'proxsae verify "0.1*L1 + NonNegative"',
    )
    verify.add_argument("regularizer", help='such as "0.1*L1 + NonNegative"')

    prove = _command(commands, "prove", run_prove, "prove the catalogue with z3 and print the table", "proxsae prove")
    prove.add_argument("--timeout", type=float, default=60.0, help="seconds for each theorem (default: 60)")
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", help="Hugging Face name, folder or .gguf file (default: the embedded SmolLM2-135M)")
    command.add_argument("--text", help=".txt or .jsonl file, or Hugging Face dataset (default: embedded Wikipedia)")
    command.add_argument("--field", default="text", help="text field of a .jsonl file or dataset (default: text)")


def run_demo_command(options: argparse.Namespace) -> None:
    """Run the demo and print its table."""
    from proxsae.data.files import check_writable
    from proxsae.demo import FAST, FULL, run_demo
    from proxsae.report import format_table

    check_writable(options.out)
    table = run_demo(options.out, options.folder, FAST if options.fast else FULL)
    print(format_table(table))
    print(f"report: {options.out.resolve()}")


def run_harvest(options: argparse.Namespace) -> None:
    """Write an activation store."""
    from proxsae.data.files import check_writable
    from proxsae.data.shard import INDEX
    from proxsae.llm import harvest, load_model

    check_writable(options.out / INDEX)
    model = load_model(options.model)
    harvest(
        model,
        options.text,
        block=options.block,
        n_tokens=options.tokens,
        out=options.out,
        context_length=options.context,
        dtype=options.dtype,
        field=options.field,
    )


def run_fit(options: argparse.Namespace) -> int:
    """Train and save a model; the exit status is 130 if the training was interrupted."""
    from proxsae.data.files import check_writable
    from proxsae.data.rows import mapped
    from proxsae.data.store import ActivationStore
    from proxsae.estimator import ProxSAE

    check_writable(options.out)
    is_array = options.data.suffix == ".npy"
    X = mapped(options.data) if is_array else ActivationStore(options.data)
    rate = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    sae = ProxSAE(
        options.regularizer,
        options.components,
        target_l0=options.target_l0,
        n_steps=options.steps,
        batch_size=options.batch_size,
        random_state=options.seed,
        verbose=1,
        checkpoint_dir=options.checkpoint,
        checkpoint_every=options.checkpoint_every,
        **rate,
    ).fit(X, resume=options.resume)
    if sae.n_iter_ == 0:  # what may be there already is worth more
        print("proxsae fit: interrupted before the first step; nothing is saved", file=sys.stderr)
        return 130
    sae.save(options.out)
    last = {name: values[-1] for name, values in sae.history_.items()}
    print(f"{sae.n_iter_} steps, FVU {last['fvu']:.4f} and L0 {last['l0']:.1f} on the last batch; saved {options.out}")
    return 0 if sae.n_iter_ == options.steps else 130


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the table of the trained models."""
    from proxsae.formats import load
    from proxsae.llm import evaluate, load_model
    from proxsae.report import format_table, table_row

    saes = {path: load(path) for path in options.saes}
    provenance: dict[str, Any] = next(
        (found for sae in saes.values() if (found := getattr(sae, "provenance_", None))), {}
    )
    block = options.block or provenance.get("site")
    if block is None:
        raise ValueError("no file says where its activations come from; give --block")
    results = evaluate(
        load_model(options.model),
        saes,
        options.text,
        block=block,
        n_tokens=options.tokens,
        context_length=options.context or provenance.get("context_length", 128),
        check_provenance=not options.any_place,
        split=options.split,
        field=options.field,
    )
    print(format_table([table_row(name, result) for name, result in results.items()]))


def run_report(options: argparse.Namespace) -> None:
    """Write feature cards."""
    from proxsae.data.files import check_writable
    from proxsae.formats import load
    from proxsae.llm import ActivationStore, load_model
    from proxsae.report import feature_cards, write_report

    check_writable(options.out)
    sae, store = load(options.sae), ActivationStore(options.store)
    tokenizer = load_model(options.model or store.info["model"]).tokenizer
    cards = feature_cards(
        sae.transform(store), store, lambda token: str(tokenizer.decode([token])), n_features=options.features
    )
    path = write_report(
        options.out,
        title=f"Features of {Path(options.sae).name}",
        facts={
            "Regularizer": repr(sae.regularizer),
            "Atoms": f"{len(sae.components_):,}",
            "Activations": f"{store.info['model']}, {store.info['site']}, {len(store):,} tokens",
        },
        histories={Path(options.sae).stem: sae.history_} if sae.history_ else {},
        table=[],
        cards={"Features": cards},
    )
    print(f"report: {path.resolve()}")


def run_convert(options: argparse.Namespace) -> None:
    """Write a model for another library."""
    from proxsae.formats import load, save
    from proxsae.formats.files import shown

    sae = load(options.source, options.source_format, options.regularizer)
    save(sae, options.out, options.format, options.signed)
    n_components, n_features = sae.components_.shape
    print(f"{options.source}: {n_components} atoms, {n_features} features, R = {shown(str(sae.regularizer_))}")
    print(f"saved {options.out} for {options.format}")


def run_verify(options: argparse.Namespace) -> int:
    """Print the report of every check; the exit status is 1 if one failed."""
    from proxsae.verification import verify

    report = verify(options.regularizer)
    print(report)
    return 0 if report.passed else 1


def run_prove(options: argparse.Namespace) -> int:
    """Print a line a theorem; the exit status is 1 if one was refuted."""
    from proxsae.verification.proofs.catalogue import prove_all

    refuted = 0
    for proof in prove_all(options.timeout):
        print(f"{proof.verdict:25s} {proof.seconds:7.2f} s  {proof.regularizer}: {proof.theorem}", flush=True)
        refuted += proof.verdict == "counterexample"
    return 1 if refuted else 0
