"""How much of the bare truncated forward pass harvest reaches, in tokens/s.

The bare pass is the model with its later blocks and head cut off, without hooks, on tokens that lie ready, its outcome
thrown away. Harvest reads and tokenises the text, hooks, stops, drops, checks and writes the store. The two are run in
turn; the table gives each run and the median of the ratios. On a machine busy with other work, --cpu-time --threads 1
counts the seconds of this process instead of those of the clock.

    python benchmarks/harvest.py --tokens 8192 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from proxsae.llm import LanguageModel, documents, harvest, load_model
from proxsae.llm.contexts import batches, pack

Clock = Callable[[], float]


def bare_speed(model: LanguageModel, block: int, tokens: list[torch.Tensor], clock: Clock) -> float:
    """Return tokens/s of the first blocks alone."""
    decoder, blocks, config = model.model.base_model, model.blocks, model.model.config
    parent = next(module for module in decoder.modules() if blocks in module.children())
    name = next(name for name, child in parent.named_children() if child is blocks)
    depth = config.num_hidden_layers
    setattr(parent, name, blocks[:block])
    config.num_hidden_layers = block
    try:
        started = clock()
        with torch.inference_mode():
            for batch in tokens:
                decoder(input_ids=batch, use_cache=False)
        return sum(batch.numel() for batch in tokens) / (clock() - started)
    finally:
        setattr(parent, name, blocks)
        config.num_hidden_layers = depth


def harvest_speed(
    model: LanguageModel, block: int, n_tokens: int, text: str | None, clock: Clock, **options: int
) -> float:
    """Return tokens/s of harvest, the tokens dropped included as the bare pass includes them."""
    with tempfile.TemporaryDirectory() as folder:
        started = clock()
        store = harvest(
            model,
            text,
            block=block,
            n_tokens=n_tokens,
            out=Path(folder) / "store",
            split="all",
            verbose=False,
            **options,
        )
        seconds = clock() - started
        return store.info["contexts"] * store.info["context_length"] / seconds


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name, folder or .gguf file; the embedded SmolLM2-135M by default")
    parser.add_argument("--text", help="text source; the embedded summaries by default")
    parser.add_argument("--block", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a run")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context-length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch threads; as many as there are cores by default")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options.model)
    length, size = options.context_length, options.batch_size
    n_batches = max(options.tokens // (length * size), 1)
    packed = pack(documents(options.text), model.tokenizer, length)
    ready = [
        torch.from_numpy(batch.tokens.astype(np.int64)).to(model.device)
        for batch in islice(batches(packed, model.tokenizer, length, size), n_batches)
    ]
    # a little fewer rows than tokens, so that both run the same batches
    n_rows = int(0.97 * n_batches * length * size)
    print(f"{model.name} on {model.device}, block {options.block}, {n_batches} batches of {size} x {length} tokens")
    seconds = "CPU" if options.cpu_time else "clock"
    print(f"{torch.get_num_threads()} torch threads, {seconds} seconds, torch {torch.__version__}")
    bare_speed(model, options.block, ready[:1], clock)
    ratios = []
    print(f"{'run':>4} {'bare tokens/s':>14} {'harvest tokens/s':>17} {'ratio':>6}")
    for run in range(options.repeats):
        bare = bare_speed(model, options.block, ready, clock)
        full = harvest_speed(model, options.block, n_rows, options.text, clock, context_length=length, batch_size=size)
        ratios.append(full / bare)
        print(f"{run:>4} {bare:>14,.0f} {full:>17,.0f} {full / bare:>6.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
