"""Sweeps on a tiny random language model: rows, resumption, failures, the table, differences and the command."""

import csv
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from llm_models import one_thread, tiny_texts, tiny_tokenizer, tiny_transformer  # noqa: F401

from proxsae import ProxSAE
from proxsae.cli import build_parser, main
from proxsae.commands.parser import packing_of
from proxsae.formats import load, save
from proxsae.llm import ActivationStore, evaluate
from proxsae.studies import Configuration, Source, abstopk_paper, grid, probe, read_rows, sweep
from proxsae.studies.comparison import compared, comparison_table, factor_table, mean_and_interval
from proxsae.studies.standardised import StandardisedRows
from proxsae.studies.sweep_page import facts, failures, figure, groups, summary

TRAINING = {"n_components": 32, "n_steps": 10, "batch_size": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    tiny_transformer().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "text.txt").write_text("\n\n".join(tiny_texts(200)))
    return folder


@pytest.fixture(scope="module")
def source(folder):
    return Source(
        "2", 1500, n_heldout=100, model=str(folder / "model"), text=str(folder / "text.txt"), context_length=16
    )


@pytest.fixture(scope="module")
def asked():
    return grid(["topk", "topk:2", "abstopk", "relu"], [2, 4, 20], n_seeds=2, **TRAINING)


@pytest.fixture(scope="module")
def swept(folder, source, asked):
    return sweep(asked, source, folder / "out", verbose=False)


def measured(row):
    """What a row holds but for the time it took."""
    return {**row["result"], "dead": row["fit"]["dead_in_training"]}


def test_a_grid_has_whole_grids_first_and_matches_atoms_or_parameters():
    rows = grid(["topk", "abstopk"], [16, 32], n_components=8, n_seeds=2)
    assert [(c.seed, c.activation, c.l0) for c in rows[:4]] == [
        (0, a, k) for a in ("topk", "abstopk") for k in (16, 32)
    ]
    assert [c.seed for c in rows] == [0] * 4 + [1] * 4
    assert {(c.activation, c.n_components) for c in rows} == {("topk", 8), ("abstopk", 8)}
    one_sided = grid(["topk", "abstopk", "jumprelu", "soft"], [16], n_components=8, match="atoms")
    assert [c.n_components for c in one_sided] == [16, 8, 16, 8]
    assert len({c.name for c in abstopk_paper([16], n_components=8)}) == 24


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: grid(["topk"], [], n_components=8), "l0 is empty"),
        (lambda: grid(["topk:0"], [2], n_components=8), "asks for '0' times the atoms"),
        (lambda: grid(["topk"], [2], n_components=8, match="size"), "match must be one of"),
        (lambda: grid(["topk"], [2], n_components=0), "at least 1, got 0"),
        (lambda: Configuration("softtopk", 8, 2), "a sweep knows the activations relu, jumprelu, topk"),
        (lambda: Configuration("topk", 8, 2.5), "l0 must be an integer above 0 for topk, got 2.5"),
        (lambda: Configuration("topk", 8, 2, scaling="none"), "scaling must be one of"),
    ],
)
def test_what_is_no_sweep_is_said_in_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()


def test_rows_are_measured_as_one_would_alone(swept, source, folder):
    row = next(row for row in swept if row["name"] == "abstopk-32-l0_4-seed1")
    model = source.load("cpu")
    sae = ProxSAE.load(folder / "out" / "saes" / "abstopk-32-l0_4-seed1.safetensors")
    alone = evaluate(model, sae, source.text, block=2, n_tokens=100, context_length=16, verbose=False)
    assert row["result"] == pytest.approx(alone, rel=1e-6)
    seen, _ = source.harvest(model, folder / "out" / "activations", verbose=False)
    assert len(seen) == 1350
    again = ProxSAE("Cardinality(4)", 32, n_steps=10, batch_size=128, random_state=1).fit(seen)
    np.testing.assert_array_equal(again.components_, sae.components_)
    assert row["fit"]["dead_in_training"] == (sae.transform(seen).getnnz(axis=0) == 0).mean()


def test_a_steered_row_has_the_l0_asked_for_on_text_it_has_not_seen(swept):
    relu = {r["configuration"]["l0"]: r for r in swept if r["name"].startswith("relu") and "result" in r}
    assert relu[2]["result"]["l0"] == pytest.approx(2, rel=0.3)
    assert relu[4]["result"]["l0"] == pytest.approx(4, rel=0.3)


def test_an_l0_out_of_reach_is_a_row_that_says_so(swept):
    failed = failures(swept)
    assert len(failed) == 2
    assert failed[0].startswith("relu-32-l0_20-seed0: no weight of ")
    assert sum("result" in row for row in swept) == 22


def test_a_finished_row_is_never_done_again(swept, asked, source, folder, monkeypatch):
    def no(*_):
        raise AssertionError("the model was loaded for nothing")

    monkeypatch.setattr(Source, "load", no)
    assert sweep(asked, source, folder / "out", verbose=False) == swept
    found = read_rows(folder / "out")
    assert {row["name"] for row in found} == {row["name"] for row in swept}
    assert [row["configuration"]["l0"] for row in found[:6]] == [2, 2, 4, 4, 20, 20]
    with pytest.raises(ValueError, match="n_steps = 10, and 11 is asked for: give another folder"):
        sweep(grid(["topk"], [2], **{**TRAINING, "n_steps": 11}), source, folder / "out")


def test_a_row_without_its_autoencoder_is_made_again(swept, source, folder):
    name = "topk-32-l0_2-seed0"
    path = folder / "out" / "saes" / f"{name}.safetensors"
    before = ProxSAE.load(path).components_
    path.unlink()
    rows = sweep(grid(["topk"], [2], **TRAINING), source, folder / "out", verbose=False)
    np.testing.assert_array_equal(ProxSAE.load(path).components_, before)
    assert [measured(row) for row in rows] == [measured(row) for row in swept if row["name"] == name]


def test_a_damaged_autoencoder_is_not_a_row_that_failed(swept, source, folder):
    name, out = "topk-32-l0_2-seed0", folder / "out"
    row, path = out / "rows" / f"{name}.json", out / "saes" / f"{name}.safetensors"
    held = {file: file.read_bytes() for file in (row, path)}
    half = json.loads(row.read_text())
    del half["result"]  # killed before it was measured
    row.write_text(json.dumps(half))
    path.write_bytes(held[path][:-1])
    with pytest.raises(ValueError, match=f"{name}.safetensors is not a whole"):
        sweep(grid(["topk"], [2], **TRAINING), source, out, verbose=False)
    assert json.loads(row.read_text()) == half
    for file, content in held.items():
        file.write_bytes(content)


def test_an_l0_above_the_number_of_atoms_is_refused_before_the_first(source, tmp_path):
    for several, name in (
        (grid(["topk:2", "topk"], [4, 9], n_components=8), "topk"),
        (grid(["topk", "abstopk"], [9], n_components=8, match="atoms"), "abstopk"),
    ):
        with pytest.raises(ValueError, match=f"l0 must be at most n_components = 8 for {name}, got 9"):
            sweep(several, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_of_different_trainings_are_refused_before_the_first(source, tmp_path):
    several = [Configuration("topk", l0=k, learning_rate=k, **TRAINING) for k in (2, 4)]
    with pytest.raises(ValueError, match=r"learning_rate; got \(10, 128, 2\) and \(10, 128, 4\): give"):
        sweep(several, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_killed_between_two_rows_it_ends_as_if_never_stopped(swept, source, folder, monkeypatch):
    some = grid(["topk", "abstopk"], [2, 4], **TRAINING)
    count = {"left": 2}
    fit = ProxSAE.fit

    def killed(self, X):
        if not count["left"]:
            raise KeyboardInterrupt
        count["left"] -= 1
        return fit(self, X)

    monkeypatch.setattr(ProxSAE, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(some, source, folder / "killed", activations=folder / "out" / "activations", verbose=False)
    count["left"] = 2  # those that were trained are not trained again
    rows = sweep(some, source, folder / "killed", activations=folder / "out" / "activations", verbose=False)
    whole = {row["name"]: measured(row) for row in swept if "result" in row}
    assert {row["name"]: measured(row) for row in rows} == {row["name"]: whole[row["name"]] for row in rows}


def test_the_table_has_a_line_a_row(swept, folder):
    with (folder / "out" / "sweep.csv").open() as stream:
        table = list(csv.DictReader(stream))
    held = read_rows(folder / "out")
    assert sorted(row["name"] for row in swept) == sorted(row["name"] for row in held)
    assert [line["name"] for line in table] == [row["name"] for row in held]
    row, line = held[0], table[0]
    assert float(line["fvu"]) == row["result"]["fvu"]
    assert (float(line["target_l0"]), float(line["l0"])) == (2, row["result"]["l0"])
    assert json.loads((folder / "out" / "sweep.json").read_text()) == held
    assert next(line for line in table if line["error"])["fvu"] == ""


def test_the_summary_has_mean_and_range_over_seeds(swept):
    line = next(line for line in summary(swept) if (line[""], line["k"]) == ("topk 64", "4"))
    fvu = [row["result"]["fvu"] for row in swept if row["name"].startswith("topk-64-l0_4-")]
    assert line["seeds"] == "2"
    assert line["FVU"] == f"{np.mean(fvu):.4f} [{min(fvu):.4f}, {max(fvu):.4f}]"
    (row,) = (row for row in swept if row["name"] == "topk-64-l0_4-seed0")
    (line,) = summary([row | {"result": row["result"] | {"mse": 0.000678693, "kl": 0.00011134}}])
    assert (line["MSE"], line["KL"]) == ("0.00067869", "0.000111")
    (line,) = summary([row | {"result": row["result"] | {"mse": 123456.7, "kl": 1234.5}}])
    assert (line["MSE"], line["KL"]) == ("123457", "1234")


def test_the_page_says_how_many_tokens_were_measured(swept):
    measured = next(row["result"]["n_tokens"] for row in swept if "result" in row)
    assert measured > 100  # whole batches, more than asked for
    assert f"{measured} tokens of other documents measured" in facts(swept)["Text"]
    failed = [{**row, "error": "no weight"} for row in swept]
    for row in failed:
        row.pop("result", None)
    assert facts(failed)["Text"].endswith(" tokens harvested")


@pytest.mark.parametrize(("match", "size"), [("parameters", 32), ("atoms", 64)])
def test_the_panel_of_ratios_names_the_topk_it_divides_by(swept, match, size):
    names = {c.name for c in grid(["topk", "topk:2", "abstopk"], [2, 4], n_seeds=2, match=match, **TRAINING)}
    rows = [row for row in swept if row["name"] in names]
    assert f"FVU / FVU of topk {size}" in [axis.get_title() for axis in figure(rows).axes]
    assert {seed["over_topk"] for l0 in (2, 4) for seed in groups(rows)[f"topk {size}", l0]} == {1}


def test_differences_are_paired_by_seed(swept):
    pairs = compared(swept, "abstopk", "topk", 32, 2)
    by_name = {row["name"]: row["result"] for row in swept if "result" in row}
    assert len(pairs) == 6
    for pair in pairs:
        tail = f"l0_{pair['l0']}-seed{pair['seed']}"
        a, b = by_name[f"abstopk-32-{tail}"], by_name[f"topk-64-{tail}"]
        assert pair["fvu"] == pytest.approx(100 * (a["fvu"] - b["fvu"]) / b["fvu"])
        assert pair["loss_recovered"] == pytest.approx(100 * (a["loss_recovered"] - b["loss_recovered"]))
    assert len(compared(swept, "topk", "topk", 32, 2)) == 6
    assert {line["k"] for line in comparison_table(swept)} == {"2", "4", "20", "all"}


def test_every_row_is_compared_with_topk_of_as_many_and_of_twice_the_atoms():
    def lines(*grids):
        several = [asdict(c) for part in grids for c in part]
        result = {"fvu": 1, "kl": 1, "loss_recovered": 1}
        return {line[""] for line in comparison_table([{"configuration": c, "result": result} for c in several])}

    first = grid(["topk", "topk:2", "abstopk", "relu"], [4], n_components=8)
    second = grid(["topk", "abstopk", "relu"], [4], n_components=4, match="atoms")
    of_first = {"topk 8 against topk 16", *(f"{R} 8 against topk {n}" for R in ("abstopk", "relu") for n in (8, 16))}
    of_second = {"abstopk 4 against topk 8", "relu 8 against topk 8"}
    assert lines(first) == of_first
    assert lines(second) == of_second
    assert lines(first, second) == of_first | of_second


def test_the_interval_is_that_of_a_paired_t_test_over_seeds():
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).normal(1, 2, size=(5, 3))
    pairs = [{"seed": seed, "fvu": value} for seed, some in enumerate(values) for value in some]
    mean, half, n = mean_and_interval(pairs, "fvu")
    low, high = ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
    assert (mean - half, mean + half, n) == pytest.approx((low, high, 5))
    assert mean_and_interval(pairs[:3], "fvu")[1] is None


def test_the_factorial_tells_the_levels_of_each_factor_apart():
    rows = []
    for c in abstopk_paper([32], n_components=8):
        is_abs, by_batch = "abstopk" in c.activation, c.activation.startswith("batch")
        fvu = 0.2 * (1 + is_abs * (0.1 if c.scaling == "token" else -0.1) + 0.3 * by_batch * (not is_abs))
        rows.append({"name": c.name, "configuration": asdict(c), "result": {"fvu": fvu, "kl": 1, "loss_recovered": 1}})
    found = {line["k"]: line["FVU, %"] for line in factor_table(rows) if line[""] == "AbsTopK 8 against TopK 8"}
    assert found["scope: token"] == "+0.00"
    assert found["auxk: yes"] == found["auxk: no"]
    assert float(found["scaling: token"]) - float(found["scaling: mean-norm"]) == pytest.approx(10 + 10 / 1.3, abs=0.02)


def test_standardised_rows():
    X = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32) * [[3]] + 5
    X[7] = 2
    rows = StandardisedRows(X)[:]
    np.testing.assert_array_equal(StandardisedRows(X)[3], rows[3])
    assert not rows[7].any()
    rows = np.delete(rows, 7, axis=0)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=1, ddof=1), 1, atol=1e-5)


def test_a_model_of_standardised_rows_says_so_wherever_it_is_used(swept, folder, source, tmp_path):
    asked = Configuration("topk", l0=4, scaling="token", **TRAINING)
    activations = folder / "out" / "activations"
    (row,) = sweep([asked], source, tmp_path, activations=activations, verbose=False)
    by_name = {one["name"]: one["result"] for one in swept if "result" in one}
    expected = {"l0": 4, "fvu": pytest.approx(by_name["topk-32-l0_4-seed0"]["fvu"], rel=0.3)}
    assert {name: row["result"][name] for name in expected} == expected
    model, sae = source.load("cpu"), ProxSAE.load(tmp_path / "saes" / f"{asked.name}.safetensors")
    options = {"n_tokens": 100, "context_length": 16, "verbose": False}
    assert row["result"] == pytest.approx(evaluate(model, sae, source.text, **options), rel=1e-6)
    save(sae, tmp_path / "saelens", format="saelens")
    with pytest.warns(UserWarning, match="is for rows that are normalised first"):
        again = load(tmp_path / "saelens")
    told = {"site": "block.2", "hook": "blocks.1.hook_resid_post", "normalised_rows": "layer_norm"}
    assert told.items() <= again.provenance_.items()
    assert "layer_norm" in (tmp_path / "saelens" / "README.md").read_text()
    assert evaluate(model, again, source.text, **options)["fvu"] == pytest.approx(row["result"]["fvu"], rel=1e-5)
    with pytest.raises(ValueError, match=r"no place for rows that are normalised first \('layer_norm'\)"):
        save(sae, tmp_path / "other", format="dictionary_learning")
    with pytest.raises(ValueError, match=r"mine is for rows that are normalised first \(layer_norm\)"):
        probe({"mine": sae}, ActivationStore(activations), model.tokenizer)


def test_command_and_a_row_alone(swept, folder, source, capsys):
    place = ["--model", source.model, "--text", source.text, "--block", "2", "--tokens", "1500", "--context", "16"]
    options = ["--regularizers", "topk,topk:2,abstopk,relu", "--l0", "2,4,20", "--seeds", "2", "--components", "32"]
    options += ["--steps", "10", "--batch-size", "128", "--heldout-tokens", "100", "--out", str(folder / "out")]
    assert main(["sweep", *place, *options]) == 3  # for the rows that failed
    printed = capsys.readouterr().out
    assert "abstopk 32 against topk 64" in printed
    assert "failed: relu-32-l0_20-seed0" in printed
    page = (folder / "out" / "sweep.html").read_text()
    assert "<svg" in page
    assert "relu-32-l0_20-seed0" in page
    assert (folder / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")

    # a part of the rows, asked for later, prints that part and keeps the whole of the folder
    part = [*options, "--regularizers", "topk", "--seeds", "1"]
    assert main(["sweep", *place, *part, "--l0", "2"]) == 0
    assert "abstopk" not in capsys.readouterr().out
    with (folder / "out" / "sweep.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 24
    assert (folder / "out" / "sweep.html").read_text() == page
    for other, said in (("--steps=11", "n_steps = 10, and 11"), ("--context=8", "context_length = 16, and 8")):
        assert main(["sweep", *place, *part, "--l0", "3", other]) == 1  # a new name, but not one table with the rest
        assert f"{said} is asked for: give another folder" in capsys.readouterr().err

    file = folder / "out" / "rows" / "relu-32-l0_4-seed1.json"
    store = ["--activations", str(folder / "out" / "activations")]
    assert main(["sweep", "--row", str(file), *store, "--out", str(folder / "alone")]) == 0
    alone = json.loads((folder / "alone" / "rows" / file.name).read_text())
    assert measured(alone) == measured(json.loads(file.read_text()))
    assert main(["sweep", "--row", str(folder / "text.txt"), "--out", str(folder / "x")]) == 1
    assert "is not a row of a sweep" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(capsys):
    for options, sentence in (
        (["--l0", "a"], "--l0 takes numbers"),
        (["--auxk", "maybe"], "--auxk takes yes, no"),
        (["--regularizers", ""], "activations is empty"),
    ):
        assert main(["sweep", "--block", "2", "--out", "unused", *options]) == 1
        assert sentence in capsys.readouterr().err
    assert main(["sweep", "--out", "unused"]) == 1
    assert "give --block" in capsys.readouterr().err


def test_how_documents_become_contexts_is_part_of_the_source(folder):
    """It reaches the harvest, is written down, and a source without it is written as before there was any."""
    source = Source("2", 300, 100, str(folder / "model"), str(folder / "text.txt"), context_length=16)
    assert "packing" not in source.as_dict()
    flags = ["--no-bos", "--separator", "none", "--exclude-tokens", "3"]
    options = build_parser().parse_args(["sweep", "--block", "2", "--out", "sweep", *flags])
    source = replace(source, packing=packing_of(options))
    assert Source(**json.loads(json.dumps(source.as_dict()))) == source
    train, _ = source.harvest(source.load("cpu"), folder / "packed", verbose=False)
    assert (train.info["bos"], train.info["separator"], train.info["excluded_tokens"]) == (False, None, [3])
