"""SAEBench on models of ours: its core evaluation and its sparse probing, beside what `proxsae evaluate` says.

    python tests/formats/peers/saebench.py
    python tests/formats/peers/saebench.py --model FOLDER --sae FILE --text FILE --context 128 --batches 8

`make test-saebench` runs the first in an environment that has SAEBench: a tiny model of random weights and SAEs fitted
on it. Folders of the working directory stand for the model and the data set that SAEBench would download.
"""

import argparse
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import sae_lens

sys.path.insert(0, str(Path(__file__).parents[2]))
from llm_models import WORDS, tiny_model
from sae_bench.evals.core.main import multiple_evals
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
from sae_bench.evals.sparse_probing.main import run_eval
from transformer_lens.loading_from_pretrained import OFFICIAL_MODEL_NAMES

from proxsae import ProxSAE
from proxsae.formats import load
from proxsae.llm import evaluate, harvest, load_model

NEWS = "fancyzhx/ag_news"  # one of the data sets of SAEBench, of which a folder here takes the place
MODEL = "model-in-this-folder"
OFFICIAL_MODEL_NAMES.append(MODEL)  # TransformerLens loads no others
TINY = {"cardinality": "Cardinality(6)", "soft": "0.3*L1", "relu": "0.3*L1 + NonNegative", "firm": "0.5*MCP(3.0)"}
TOLERANCE = 1e-5  # of one, or of the number itself where that is more
FORM = "{:34s} {:>12s} {:>12s}  {}"


def small_text(n_words, seed=0):
    """Random words, each of which makes one of three others likely, so that there is something to predict."""
    rng = np.random.default_rng(seed)
    follows = rng.integers(0, len(WORDS), (len(WORDS), 3))
    word, words = 0, []
    for choice in rng.integers(0, 4, n_words):
        word = int(rng.integers(len(WORDS))) if choice == 3 else int(follows[word, choice])
        words.append(WORDS[word])
    return " ".join(words)


def write_news(n_texts=60, seed=0):
    """Texts of four classes, each with words of its own."""
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        lines = []
        for label in range(4):
            own = WORDS[15 * label : 15 * (label + 1)]
            for _ in range(n_texts):
                words = [str(rng.choice(own if rng.random() < 0.3 else WORDS)) for _ in range(20)]
                lines.append(json.dumps({"text": " ".join(words), "label": label}))
        path = Path(NEWS, f"{split}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def tiny(context):
    """A tiny model in a folder of this directory, SAEs fitted on it, and a text."""
    model = tiny_model("llama", hidden_size=32, intermediate_size=48)
    model.model.save_pretrained(MODEL)
    model.tokenizer.save_pretrained(MODEL)
    model = load_model(MODEL)
    store = harvest(
        model,
        [small_text(6000, 1)],
        hook="block.2",
        n_tokens=6000,
        out="store",
        context_length=context,
        drop=[],
        split="all",
        verbose=False,
    )
    saes = {
        name: ProxSAE(R, 96, n_steps=300, batch_size=256, random_state=0, device="cpu").fit(store)
        for name, R in TINY.items()
    }
    return model, saes, small_text(2000)


def cut(text, tokenizer, n_tokens):
    """The text of so many tokens, for SAEBench goes on in it where it measures the second half of its numbers."""
    ends = [end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]]
    if len(ends) < n_tokens:
        raise ValueError(f"the text has {len(ends)} tokens, needed are {n_tokens}")
    return text[: ends[n_tokens - 1]]


def core(objects, text, n_batches, context, batch):
    """What SAEBench measures of each object."""
    Path("one-document").mkdir(exist_ok=True)
    Path("one-document", "train.jsonl").write_text(json.dumps({"text": text}) + "\n")
    found = multiple_evals(
        list(objects.items()),
        n_eval_reconstruction_batches=n_batches,
        n_eval_sparsity_variance_batches=n_batches,
        eval_batch_size_prompts=batch,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
        dataset="one-document",
        context_size=context,
        output_folder="core",
        device="cpu",
        force_rerun=True,
    )
    return {one["sae_set"]: {k: v for part in one["metrics"].values() for k, v in part.items()} for one in found}


def compare(name, theirs, ours, context, batch):
    """Print the numbers beside each other, and return the largest difference where they mean the same."""
    n_features = ours.pop("n_features")
    of_predictions = (context - 1) / (context - 2)  # ours count the prediction from the first token too
    tokens = batch * (context - 1)
    increase = theirs["ce_loss_with_sae"] - theirs["ce_loss_without_sae"]
    same = {
        "l0": (theirs["l0"], ours["l0"], ""),
        "squared error of a token": (
            theirs["mse"] * tokens,
            ours["mse"] * n_features,
            "theirs over the tokens twice",
        ),
        "rise of the cross-entropy": (
            increase,
            (ours["cross_entropy_spliced"] - ours["cross_entropy_clean"]) * of_predictions,
            "ours of as many predictions as theirs",
        ),
    }
    different = {
        "cross-entropy, clean": ("ce_loss_without_sae", "cross_entropy_clean", "theirs not from the first token"),
        "cross-entropy, spliced": ("ce_loss_with_sae", "cross_entropy_spliced", "the same"),
        "cross-entropy, zero": ("ce_loss_with_ablation", "cross_entropy_zero", "theirs zeroes the first token too"),
        "loss recovered": ("ce_loss_score", "loss_recovered", "of the three before"),
        "KL": ("kl_div_with_sae", "kl", "theirs from the last token, not from the first"),
        "explained variance": ("explained_variance", "explained_variance", "theirs squares a mean of squares"),
        "explained variance, legacy": ("explained_variance_legacy", "explained_variance", "theirs a mean of ratios"),
        "share of atoms alive": ("frac_alive", "alive", "theirs of both sides of an atom, each by itself"),
    }
    ours["alive"] = 1 - ours["dead_fraction"]
    for what, (first, second, why) in same.items():
        print(FORM.format(f"{name}: {what}", f"{first:.5g}", f"{second:.5g}", f"the same{why and ': '}{why}"))
    for what, (first, second, why) in different.items():
        print(FORM.format(f"{name}: {what}", f"{theirs[first]:.5g}", f"{ours[second]:.5g}", why))
    return max(abs(first - second) / max(abs(second), 1.0) for first, second, _ in same.values())


def probing(objects, model_name):
    """What the sparse probing of SAEBench measures of each object, on one of its data sets."""
    write_news()
    config = SparseProbingEvalConfig(
        model_name=model_name,
        dataset_names=[NEWS],
        probe_train_set_size=80,
        probe_test_set_size=40,
        context_length=32,
        sae_batch_size=40,
        llm_batch_size=40,
        llm_dtype="float32",
        k_values=[1, 5],
    )
    found = run_eval(config, list(objects.items()), "cpu", "probing", artifacts_path="artifacts")
    return {
        name.removesuffix("_custom_sae"): {**one["eval_result_metrics"]["llm"], **one["eval_result_metrics"]["sae"]}
        for name, one in found.items()
    }


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder of transformers")
    parser.add_argument("--sae", type=Path, action="append")
    parser.add_argument("--text", type=Path, help="one document")
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4)
    return parser.parse_args()


def main():
    options = arguments()
    options = argparse.Namespace(**{k: v.absolute() if isinstance(v, Path) else v for k, v in vars(options).items()})
    given = {path.stem: load(path.absolute()) for path in options.sae or ()}
    size = {"context": options.context, "batch": options.batch}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if options.model is None:
            model, saes, text = tiny(options.context)
        else:
            Path(MODEL).symlink_to(options.model)
            model, saes, text = load_model(MODEL), given, options.text.read_text(encoding="utf-8")
        place = next(iter(saes.values())).provenance_["site"]
        objects = {name: sae.as_saebench(model_name=model.name) for name, sae in saes.items()}
        if options.model is None:
            objects["cardinality by SAELens"] = saes["cardinality"].as_saelens()
        n_tokens = options.batches * options.batch * (options.context - 1)
        text = cut(text, model.tokenizer, n_tokens)
        theirs = core(objects, text, options.batches, **size)
        ours = evaluate(
            model,
            saes,
            [text],
            block=place,
            n_tokens=n_tokens,
            context_length=options.context,
            drop=[],
            batch_size=options.batch,
            split="all",
            seed=None,
            check_provenance=False,
            verbose=False,
        )
        probes = probing(objects, model.name)
    print(f"SAEBench {version('sae-bench')} with SAELens {sae_lens.__version__}: {n_tokens} tokens, '{place}'")
    print(FORM.format("core", "SAEBench", "proxsae", "why they differ"))
    worst = 0.0
    for name in objects:
        of_ours = ours[name.removesuffix(" by SAELens")]
        n_features = saes[name.removesuffix(" by SAELens")].n_features_in_
        worst = max(worst, compare(name, theirs[name], of_ours | {"n_features": n_features}, **size))
    for name, found in probes.items():
        values = ", ".join(f"{what} {value:.3f}" for what, value in found.items() if value is not None)
        print(f"sparse probing, {name}: {values}")
    print(f"largest difference of what is the same {worst:.1e}, allowed {TOLERANCE:.0e}")
    return 0 if worst <= TOLERANCE and set(probes) == set(objects) else 1


if __name__ == "__main__":
    sys.exit(main())
