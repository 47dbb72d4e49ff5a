"""proxsae fit: a sparse autoencoder, trained."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from proxsae.commands.parser import add_command


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "fit",
        run,
        "train a sparse autoencoder on an activation store or a .npy file",
        'proxsae fit activations -R "L1 + NonNegative" --target-l0 32 --out sae.safetensors',
    )
    command.add_argument("data", type=Path, help="activation store, or .npy array (n_samples, n_features)")
    command.add_argument("-R", "--regularizer", required=True, help='such as "Cardinality(32)"')
    command.add_argument("--components", type=int, help="number of atoms (default: 8 times the features)")
    command.add_argument("--target", metavar="PLACE", help="of two places in the store: decode to this from the other")
    command.add_argument("--skip-connection", action="store_true", help="with --target: and a linear map beside it")
    command.add_argument("--crosscoder", action="store_true", help="the places in the store are blocks of features")
    command.add_argument("--target-l0", type=float, help="steer the weight of R to this mean number of non-zeros")
    command.add_argument("--steps", type=int, default=1000, help="of the training (default: 1000)")
    command.add_argument("--batch-size", type=int, default=2048, help="rows a step (default: 2048)")
    command.add_argument("--learning-rate", type=float, help="peak step size of Adam (default: 0.004)")
    command.add_argument("--seed", type=int, default=0, help="of the first atoms and the batches (default: 0)")
    shards = "of processes of torchrun, how many share the atoms out (default: 1)"
    command.add_argument("--shards", type=int, default=1, help=shards)
    command.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="keep the last two checkpoints and the best here"
    )
    command.add_argument("--checkpoint-every", type=int, default=100, help="steps between two of them (default: 100)")
    command.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in DIR")
    command.add_argument("--out", type=Path, required=True, help="the trained model, .safetensors")


def run(options: argparse.Namespace) -> int:
    """Train and save a model, alone or with the processes that torchrun has started."""
    from proxsae.training.distributed import data_parallel

    with data_parallel(options.shards) as group, warnings.catch_warnings():
        if group.rank:  # what there is to say, the first process says
            warnings.simplefilter("ignore")
        # All wait until the first has saved the model: torchrun kills the others where one ends with a status.
        status: int = group.of_first(_run(options, is_first=group.rank == 0))
        return status


def _pair(store: Any, target: str) -> tuple[Any, Any]:
    """Return the one other place of a store, and the target."""
    Y, others = store.at(target), [site for site in store.sites if site != target]
    if len(others) != 1:
        raise ValueError(f"--target {target} leaves {len(others)} places of '{store.path}' to decode from, not one")
    return store.at(others[0]), Y


def _run(options: argparse.Namespace, *, is_first: bool) -> int:
    """Return the exit status, 130 if the training was interrupted; the first process alone saves the model."""
    from proxsae.data.outputs import check_output
    from proxsae.data.rows import mapped
    from proxsae.data.store import ActivationStore
    from proxsae.estimator import ProxSAE
    from proxsae.formats.checkpoints import is_checkpoint

    check_output(options.out, options.data)
    if options.checkpoint is not None and is_checkpoint(options.out, options.checkpoint):
        raise ValueError(f"'{options.out}' is the name of a checkpoint: give the model another one")
    if options.target and options.crosscoder:
        raise ValueError("--target and --crosscoder exclude each other: one decodes to one place, the other to all")
    is_array = options.data.suffix == ".npy"
    X, Y = mapped(options.data) if is_array else ActivationStore(options.data), None
    if is_array and (options.target or options.crosscoder):
        raise ValueError("a .npy file has no places in a model: --target and --crosscoder need an activation store")
    blocks = X.info["widths"] if options.crosscoder else None
    if options.target:
        X, Y = _pair(X, options.target)
    rate = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    sae = ProxSAE(
        options.regularizer,
        options.components,
        blocks=blocks,
        skip_connection=options.skip_connection,
        target_l0=options.target_l0,
        n_steps=options.steps,
        batch_size=options.batch_size,
        random_state=options.seed,
        verbose=1,
        checkpoint_dir=options.checkpoint,
        checkpoint_every=options.checkpoint_every,
        **rate,
    ).fit(X, Y, resume=options.resume)
    status = 0 if sae.n_iter_ == options.steps else 130
    if not is_first:
        return status
    sae.save(options.out)
    last = {name: values[-1] for name, values in sae.history_.items()}
    print(f"{sae.n_iter_} steps, FVU {last['fvu']:.4f} and L0 {last['l0']:.1f} on the last batch; saved {options.out}")
    return status
