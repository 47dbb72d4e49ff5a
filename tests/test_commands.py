"""The whole way on the command line, with a tiny random language model: harvest, fit, evaluate, report, demo."""

import json
import os
import re
import shutil
import signal
import tempfile
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from llm_models import one_thread, tiny_model, tiny_texts, tiny_tokenizer, tiny_transformer  # noqa: F401

from proxsae import ProxSAE, demo
from proxsae.cli import main
from proxsae.data.outputs import check_output
from proxsae.llm import ActivationStore, evaluate, harvest, load_model
from proxsae.metrics import reconstruction_metrics
from proxsae.report.server import PageServer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a model, a text and a harvest."""
    folder = tmp_path_factory.mktemp("work")
    tiny_transformer().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "text.txt").write_text("\n\n".join(tiny_texts(400)))
    options = ["--block", "2", "--tokens", "3000", "--context", "16", "--out", str(folder / "store")]
    assert main(["harvest", *_model(folder), *options]) == 0
    return folder


def _model(folder):
    return ["--model", str(folder / "model"), "--text", str(folder / "text.txt")]


@pytest.fixture(scope="module")
def sae(folder):
    path = folder / "sae.safetensors"
    # as many atoms as it takes: 16 features of random weights have no sparse code
    options = [
        "-R",
        "Cardinality(8)",
        "--components",
        "64",
        "--steps",
        "200",
        "--batch-size",
        "256",
        "--out",
        str(path),
    ]
    assert main(["fit", str(folder / "store"), *options]) == 0
    return path


def _rows(table):
    """Return the printed table as a dict from name to a dict from column to text."""
    title, *lines = table.splitlines()
    columns, *rows = (re.split(r"\s{2,}", line.strip()) for line in (title, *lines))
    return {name: dict(zip(columns, numbers, strict=True)) for name, *numbers in rows}


def test_harvest_writes_the_activations_of_the_model(folder):
    store = ActivationStore(folder / "store")
    assert store.shape == (3000, 16)
    assert (store.info["site"], store.info["context_length"], store.info["complete"]) == ("block.2", 16, True)
    tokens, position = store.tokens_of(1234)
    hidden = load_model(folder / "model", device="cpu").read(_tensor(tokens), 2)
    np.testing.assert_allclose(store[1234], hidden[0, position], rtol=1e-5, atol=1e-5)


def _tensor(tokens):
    import torch

    return torch.from_numpy(tokens[None].astype(np.int64))


def test_fit_and_evaluate(folder, sae, capsys):
    store = ActivationStore(folder / "store")
    fitted = ProxSAE.load(sae)
    assert fitted.transform(store[:100]).getnnz(axis=1).tolist() == [8] * 100
    options = [*_model(folder), "--block", "2", "--context", "16", "--tokens", "200"]
    assert main(["evaluate", str(sae), *options]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"\d{3} rows replaced, 200 asked for: whole batches are run", printed.err.splitlines()[-1])
    row = _rows(printed.out)[str(sae)]
    assert float(row["L0"]) == 8
    # on unseen text much as on what it was fitted on
    assert 0 < float(row["FVU"]) < 2 * (1 - fitted.score(store)) < 0.6
    assert 0.3 < float(row["loss recovered"]) < 1
    assert float(row["KL"]) > 0


def test_evaluate_refined_codes_too(folder, sae, capsys):
    options = [*_model(folder), "--tokens", "100", "--refined"]
    assert main(["evaluate", str(sae), *options]) == 0
    rows = _rows(capsys.readouterr().out)
    assert float(rows[f"{sae}, refined"]["FVU"]) < float(rows[str(sae)]["FVU"])
    assert float(rows[f"{sae}, refined"]["L0"]) <= 8


def test_evaluate_knows_where_the_model_comes_from(folder, sae, capsys):
    told = ProxSAE.load(sae).provenance_
    assert (told["site"], told["context_length"], told["drop"]) == ("block.2", 16, "auto")
    assert told["model"] == str(folder / "model")
    options = [*_model(folder), "--tokens", "200"]
    assert main(["evaluate", str(sae), *options]) == 0
    named = capsys.readouterr().out
    assert main(["evaluate", str(sae), *options, "--block", "2", "--context", "16"]) == 0
    assert capsys.readouterr().out == named
    assert main(["evaluate", str(sae), *options, "--block", "3"]) == 1
    assert "was fitted on 'block.2' of" in capsys.readouterr().err
    assert main(["evaluate", str(sae), *options, "--block", "3", "--any-place"]) == 0


def test_how_documents_become_contexts_is_said_by_flags(folder, capsys):
    """The rows are those of harvest with these arguments, and evaluate packs as the harvest did by default."""
    out, at = folder / "packed.safetensors", ["--block", "2", "--tokens", "300", "--context", "16"]
    flags = ["--no-bos", "--separator", "w1", "--no-concatenate", "--exclude-tokens", "w2", "9"]
    assert main(["harvest", *_model(folder), *at, *flags, "--out", str(folder / "packed")]) == 0
    packing = {"bos": False, "separator": "w1", "concatenate": False, "exclude_tokens": ["w2", 9]}
    model = load_model(folder / "model", device="cpu")
    same = {"block": 2, "n_tokens": 300, "context_length": 16, "verbose": False, **packing}
    store = harvest(model, folder / "text.txt", out=folder / "packed-again", **same)
    np.testing.assert_array_equal(ActivationStore(folder / "packed")[:], store[:])
    fit = ["-R", "Cardinality(4)", "--components", "32", "--steps", "5", "--out", str(out)]
    assert main(["fit", str(folder / "packed"), *fit]) == 0
    printed = []
    for more in ([], flags, ["--bos", "--separator", "eos", "--concatenate"]):
        capsys.readouterr()
        assert main(["evaluate", str(out), *_model(folder), "--tokens", "200", *more]) == 0
        printed.append(_rows(capsys.readouterr().out)[str(out)])
    assert printed[0] == printed[1] != printed[2]
    found = evaluate(model, ProxSAE.load(out), folder / "text.txt", **{**same, "n_tokens": 200})
    assert printed[0]["FVU"] == f"{found['fvu']:.4f}"
    assert main(["harvest", *_model(folder), *at, "--separator", "w1 w2", "--out", str(folder / "wrong")]) == 1
    assert "separator holds 'w1 w2', which is neither an id" in capsys.readouterr().err
    assert not (folder / "wrong").exists()


def test_evaluate_and_report_take_the_files_of_other_libraries(folder, sae, capsys):
    theirs = folder / "saelens"
    assert main(["convert", str(sae), str(theirs), "--format", "saelens"]) == 0
    capsys.readouterr()
    options = [*_model(folder), "--tokens", "200"]
    assert main(["evaluate", str(sae), str(theirs), *options]) == 0
    ours, again = _rows(capsys.readouterr().out).values()
    assert {name: again[name] for name in ("FVU", "L0", "KL")} == {name: ours[name] for name in ("FVU", "L0", "KL")}
    assert main(["report", str(theirs), str(folder / "store"), "--out", str(folder / "theirs.html")]) == 0
    assert "Features of saelens" in (folder / "theirs.html").read_text(encoding="utf-8")


def test_evaluate_asks_where_harvests_differ(folder, sae, capsys):
    longer, other = folder / "longer", folder / "other.safetensors"
    options = ["--block", "2", "--tokens", "500", "--context", "32", "--no-bos", "--out", str(longer)]
    assert main(["harvest", *_model(folder), *options]) == 0
    assert (
        main(["fit", str(longer), "-R", "Cardinality(4)", "--components", "32", "--steps", "5", "--out", str(other)])
        == 0
    )
    capsys.readouterr()
    tables = []
    for files in ([sae, other], [other, sae]):
        command = ["evaluate", *map(str, files), *_model(folder), "--tokens", "100"]
        assert main(command) == 1
        assert re.search(r"with --context \d+ and .*; give --context for both\n$", capsys.readouterr().err)
        assert main([*command, "--context", "16"]) == 1
        assert re.search(r"with bos=\w+ and .*; give --bos or --no-bos for both\n$", capsys.readouterr().err)
        assert main([*command, "--context", "16", "--no-bos"]) == 0
        tables.append(_rows(capsys.readouterr().out))
    assert tables[0] == tables[1]


def test_counts_and_places_that_cannot_be_are_named_by_their_option(folder, sae, capsys):
    evaluate_, report = ["evaluate", str(sae), *_model(folder)], ["report", str(sae), str(folder / "store")]
    out = ["--out", str(folder / "none.html")]
    for command, sentence in (
        ([*evaluate_, "--context", "0"], "--context 0 was given; an integer of at least 2"),
        ([*evaluate_, "--block", "1"], "to be used on 'block.1' of .*; --any-place allows it"),
        ([*evaluate_, "--block", "-1"], "--block 'block.-1' was given, but .* numbered from 1 to 4"),
        ([*evaluate_, "--block", "2", "2"], r"--block \['2', '2'\] was given; one place or several different ones"),
        (
            ["steer", "--prompt", "w1", str(sae), *_model(folder)[:2], "--temperature", "-1"],
            "--temperature -1.0 was given",
        ),
        (["steer", "--prompt", "w1", str(sae), "--model", "missing", "--tokens", "0"], "--tokens 0 was given"),
        ([*report, "--tokens", "-2990", *out], "--tokens -2990 was given; an integer of at least 1"),
        ([*report, "--tokens", "0", *out], "--tokens 0 was given; an integer of at least 1"),
        (["serve", *report[1:], "--tokens", "-1"], "--tokens -1 was given"),
        (["axes", *report[1:], "--tokens", "-1", *out], "--tokens -1 was given"),
        (["probe", str(sae), "--activations", str(folder / "store"), "--rows", "-1", *out], "--rows -1 was given"),
    ):
        assert main(command) == 1
        assert re.search(sentence, capsys.readouterr().err)


def test_a_transcoder_of_two_places(folder, capsys):
    pair, out = folder / "pair", folder / "transcoder.safetensors"
    places = ["--block", "mlp_in.2", "mlp_out.2", "--tokens", "500", "--context", "16", "--out", str(pair)]
    assert main(["harvest", *_model(folder), *places]) == 0
    options = ["-R", "Cardinality(4)", "--components", "32", "--steps", "50", "--out", str(out)]
    assert main(["fit", str(pair), "--target", "mlp_out.2", "--skip-connection", *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), *_model(folder), "--tokens", "200"]) == 0
    row = _rows(capsys.readouterr().out)[str(out)]
    assert 0 < float(row["FVU"]) < 1
    assert float(row["L0"]) == 4


def test_a_crosscoder_of_two_places(folder, capsys):
    two, out = folder / "two", folder / "crosscoder.safetensors"
    places = ["--block", "1", "block.2", "--tokens", "500", "--context", "16", "--out", str(two)]
    assert main(["harvest", *_model(folder), *places]) == 0
    options = ["-R", "Cardinality(4)", "--components", "32", "--steps", "5", "--out", str(out)]
    assert main(["fit", str(two), "--crosscoder", *options]) == 0
    capsys.readouterr()
    sae, store = ProxSAE.load(out), ActivationStore(two)
    assert sae.blocks_.sizes == (16, 16)
    assert len(reconstruction_metrics(sae, store)["fvu_of_blocks"]) == 2
    for more in ([], ["--block", "1", "2"]):
        assert main(["evaluate", str(out), *_model(folder), "--tokens", "200", *more]) == 0
        printed = capsys.readouterr().out
        assert [line.split()[:3] for line in printed.splitlines()[1:]] == [
            [str(out), "at", place] for place in ("block.1", "block.2")
        ]
    assert main(["fit", str(two), "--target", "block.3", *options]) == 1
    assert "has no site 'block.3'; it has 'block.1', 'block.2'" in capsys.readouterr().err
    assert main(["fit", str(two), "--target", "block.2", "--crosscoder", *options]) == 1
    assert "--target and --crosscoder exclude each other" in capsys.readouterr().err
    np.save(folder / "x.npy", store[:])
    assert main(["fit", str(folder / "x.npy"), "--crosscoder", *options]) == 1
    assert "has no places in a model" in capsys.readouterr().err


class Perfect:
    """What passes everything on: codes [x, -x] where positive, which is what NonNegative gives."""

    def transform(self, X):
        return np.maximum(np.concatenate([X, -X], axis=1), 0)

    def inverse_transform(self, Z):
        return Z[:, : Z.shape[1] // 2] - Z[:, Z.shape[1] // 2 :]


def test_a_perfect_autoencoder_loses_nothing(folder):
    model = load_model(folder / "model", device="cpu")
    found = evaluate(
        model, Perfect(), folder / "text.txt", block=2, n_tokens=200, context_length=16, split="all", verbose=False
    )
    assert found["fvu"] == found["mse"] == found["kl"] == 0
    assert found["loss_recovered"] == 1
    assert found["l0"] == 16


def test_report_writes_a_page(folder, sae, capsys):
    out = folder / "report.html"
    options = ["--tokens", "2000", "--read", "w1 w2 w3", "--out", str(out)]
    assert main(["report", str(sae), str(folder / "store"), *options]) == 0
    html = out.read_text(encoding="utf-8")
    assert "Cardinality(8)" in html
    assert "2,000 tokens" in html
    assert '"tokens": ["\\u003cs\\u003e", "w1", "w2", "w3"]' in html
    assert "<svg" in html


def test_serve_reads_texts_until_ctrl_c(folder, sae, capsys, monkeypatch):
    run, answers = PageServer.serve_forever, []

    def serve(server):
        thread = Thread(target=run, args=(server, 0.01))
        thread.start()
        url = f"http://{server.hosts[0]}/"
        for text in ("w1 w2", "w1 " * 99):
            request = Request(f"{url}read", json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})
            try:
                with urlopen(request) as reply:
                    answers.append(json.load(reply))
            except HTTPError as error:
                answers.append(json.load(error))
        with urlopen(url) as reply:
            assert b"<title>Features of sae.safetensors</title>" in reply.read()
        server.shutdown()
        thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr("tempfile.TemporaryDirectory", None)  # not needed where a store is given
    monkeypatch.setattr(PageServer, "serve_forever", serve)
    assert main(["serve", str(sae), str(folder / "store"), "--tokens", "500", "--port", "0"]) == 0
    assert answers[0]["tree"]["tokens"] == ["<s>", "w1", "w2"]
    assert answers[0]["tree"]["values"]["length"] == 16  # two tokens, eight codes each
    assert answers[1] == {"error": "the text has 100 tokens; at most 64 can be read at once"}
    assert re.search(r"page: http://127\.0\.0\.1:\d+/ .*\nended\n", capsys.readouterr().out)


def test_serve_harvests_as_the_model_was_trained_and_sigterm_leaves_nothing(folder, sae, capsys, monkeypatch, tmp_path):
    fitted = ProxSAE.load(sae)
    fitted.provenance_ |= {"bos": False, "excluded_tokens": [5]}
    fitted.save(folder / "no_bos.safetensors")

    def serve(server):
        (store,) = tmp_path.iterdir()
        info = ActivationStore(store).info
        assert (info["bos"], info["excluded_tokens"], info["context_length"], info["rows"]) == (False, [5], 16, 300)
        assert json.loads(server.answer("w1 w2"))["tree"]["tokens"] == ["w1", "w2"]
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PageServer, "serve_forever", serve)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = ["serve", str(folder / "no_bos.safetensors"), "--tokens", "300", "--port", "0"]
    assert main([*command, *_model(folder)]) == 0
    assert capsys.readouterr().out.endswith("ended\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("command", ["serve", "axes"])
def test_options_of_a_harvest_are_refused_beside_a_store(folder, sae, command, capsys):
    given = [command, str(sae), str(folder / "store")]
    assert main([*given, *_model(folder), "--no-bos"]) == 1
    assert re.search(
        r"--text, --bos or --no-bos cannot change '.*store', which is harvested already", capsys.readouterr().err
    )


def test_the_demo_ends_in_a_table_and_a_report(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    model = tiny_model(max_position_embeddings=128)
    monkeypatch.setattr("proxsae.llm.load_model", lambda: model)
    monkeypatch.setattr("proxsae.llm.text._embedded", lambda: iter(tiny_texts(600)))
    monkeypatch.setattr(demo, "BLOCK", 2)
    monkeypatch.setattr(demo, "L0", 4)
    monkeypatch.setattr(demo, "N_CALIBRATION", 300)
    size = demo.Size(n_tokens=2000, n_components=32, n_steps=40, batch_size=128, n_heldout=200)
    monkeypatch.setattr(demo, "FAST", size)
    assert main(["demo", "--fast", "--out", "demo.html", "--folder", "demo"]) == 0
    printed = capsys.readouterr().out
    rows = _rows(printed[: printed.index("report:")])
    assert list(rows) == ["ReLU", "JumpReLU", "TopK", "AbsTopK"]
    for row in rows.values():
        assert float(row["L0"]) == pytest.approx(4, rel=0.2)
        assert 0 < float(row["FVU"]) < 1
    files = {path.name for path in (folder / "demo").iterdir()}
    names = ("relu", "jumprelu", "topk", "abstopk")
    assert files == {"activations-2300", *(f"{name}-40.safetensors" for name in names)}
    assert "JumpReLU" in (folder / "demo.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["harvest", "fit", "report", "demo"])
def test_where_nothing_can_be_written_nothing_begins(folder, command, capsys):
    harvest = ["--model", "missing", "--block", "1", "--tokens", "9"]
    inputs = {
        "harvest": harvest,
        "fit": [str(folder / "store"), "-R", "L1"],
        "report": ["missing", "store"],
        "demo": [],
    }[command]
    assert main([command, *inputs, "--out", str(folder / "text.txt" / "out")]) == 1
    error = capsys.readouterr().err
    assert "cannot be written: " in error
    assert error.count("\n") == 1


def _contents(path):
    return {str(one): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


@pytest.mark.parametrize(
    "command", ["fit", "fit a file", "fit into a store", "report", "probe", "axes", "convert", "demo"]
)
def test_no_command_writes_over_what_it_reads(folder, sae, command, tmp_path, capsys):
    shutil.copytree(folder / "store", tmp_path / "store")
    shutil.copy(sae, tmp_path / "sae")
    np.save(tmp_path / "X.npy", np.ones((9, 3)))
    (tmp_path / "link").symlink_to(tmp_path / "sae")
    of, store, shard = tmp_path / "sae", tmp_path / "store", tmp_path / "store" / "shard-00000.safetensors"
    before = _contents(tmp_path)
    arguments = {
        "fit": ["fit", store, "-R", "L1", "--out", shard],
        "fit a file": ["fit", tmp_path / "X.npy", "-R", "L1", "--out", tmp_path / "X.npy"],
        "fit into a store": ["fit", store, "-R", "L1", "--out", store / "new" / "sae"],
        "report": ["report", of, store, "--out", tmp_path / "link"],
        "probe": ["probe", "other", of, "--activations", store, "--out", of],
        "axes": ["axes", "other", "--against", of, "--out", of],
        "convert": ["convert", of, of, "--format", "proxsae"],
        "demo": ["demo", "--folder", tmp_path, "--out", shard],
    }[command]
    assert main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert "nothing can be written there" in error
    assert error.count("\n") == 1
    assert _contents(tmp_path) == before


def test_a_model_of_another_library_is_not_converted_into_itself_and_a_page_may_lie_beside_it(folder, sae, capsys):
    there = folder / "of-saelens"
    assert main(["convert", str(sae), str(there), "--format", "saelens"]) == 0
    before = _contents(there)
    for source in (there, *there.glob("*.safetensors")):
        assert main(["convert", str(source), str(there), "--format", "saelens"]) == 1
        assert "is read, so nothing" in capsys.readouterr().err
    assert _contents(there) == before
    check_output(there / "report.html", there)
    (there / "report.html").touch()
    check_output(there / "report.html", there, None, "hf://user/name")
    with pytest.raises(ValueError, match="is inside"):
        check_output(there / "cfg.json", there)
