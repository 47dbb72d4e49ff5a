"""Labels of tokens and documents, probes on planted signals, and the command on a tiny random language model."""

import csv
import shutil

import numpy as np
import pytest
import scipy.sparse
from llm_models import WORDS, one_thread, tiny_model, tiny_texts, tiny_tokenizer, tiny_transformer  # noqa: F401
from sklearn import config_context
from small_saes import sae_of

from proxsae import ProxSAE
from proxsae.cli import main
from proxsae.llm import ActivationStore, LanguageModel, harvest
from proxsae.studies import k_sparse_accuracies, probe
from proxsae.studies.labels import POSITION, documents_of, token_properties, topics
from proxsae.studies.probing import correlations, doubled, probe_table


class Spelled:
    """Tokens by number: a word, a number, a comma, ..., as a real tokenizer would spell them."""

    texts = (" The", " old", "er", ",", " 42", "(", ".", "\n")
    bos_token_id = eos_token_id = None

    def decode(self, tokens):
        return "".join(self.texts[token] for token in tokens)


class Written:
    """A store of one context."""

    info = {"context_length": 8}  # noqa: RUF012

    def trace(self, rows):
        return np.zeros(len(rows), dtype=int), np.asarray(rows)

    def tokens(self, context):
        return np.arange(8)


@pytest.fixture(scope="module")
def texts():
    """Documents of two topics, told by their words."""
    random = np.random.default_rng(0)
    halves = (WORDS[:4], WORDS[4:8])
    return [" ".join(random.choice(halves[i % 2], size=random.integers(4, 20))) for i in range(200)]


@pytest.fixture(scope="module")
def topic_of(texts):
    return {text: ("odd", "even")[i % 2 == 0] for i, text in enumerate(texts)}


@pytest.fixture(scope="module")
def store(tmp_path_factory, texts):
    out = tmp_path_factory.mktemp("store") / "activations"
    options = {"n_tokens": 1800, "context_length": 16, "split": "all", "verbose": False}
    return harvest(tiny_model(), texts, hook=["block.1", "block.2"], out=out, **options).at("block.1")


def test_properties_of_tokens_are_what_they_say():
    found = token_properties(Written(), np.arange(8), Spelled())
    assert {name: np.flatnonzero(y).tolist() for name, y in found.items()} == {
        "begins a word": [0, 1],
        "capitalised": [0],
        "has a digit": [4],
        "is punctuation": [3, 5, 6],
        "after a comma": [4],
        "after a full stop": [7],
        "after a bracket": [6],
        "after a digit": [5],
        POSITION: [0, 1, 2, 3],
    }


@pytest.mark.parametrize("part", [(0, 1800), (700, 1800)])
def test_documents_are_found_again_in_the_packed_contexts(store, texts, part):
    check_documents(store.part(*part), texts, tiny_tokenizer())


@pytest.mark.parametrize(
    "packing",
    [
        {"bos": False},
        {"separator": "bos"},
        {"concatenate": False},
        {"separator": "bos", "concatenate": False},
        {"separator": None, "concatenate": False, "context_length": 24},  # no document fills a context
        {"eos_token": None},
    ],
    ids=str,
)
def test_documents_are_found_again_however_they_are_packed(packing, texts, tmp_path):
    tokenizer, options = tiny_tokenizer(), {"context_length": 16} | packing
    tokenizer.eos_token = options.pop("eos_token", tokenizer.eos_token)
    model = LanguageModel(tiny_transformer(), tokenizer, "tiny")
    options |= {"block": 1, "n_tokens": 1200, "split": "all", "verbose": False}
    check_documents(harvest(model, texts, out=tmp_path / "activations", **options), texts, tokenizer)


def check_documents(store, texts, tokenizer):
    found = documents_of(store, tokenizer)
    assert len(found.title) > 80
    last = max(found.title)
    assert {title for document, title in found.title.items() if document != last} <= set(texts)
    assert any(text.startswith(found.title[last]) for text in texts)  # the store ends within it
    for row in range(0, len(store), 13):
        document = found.of_row[row]
        tokens, position = store.tokens_of(row)
        if document in found.title:
            assert tokenizer.decode([int(tokens[position])]) in found.title[document].split()
        else:
            assert (len(store), document) == (1100, 0)  # it began before
    changes = np.flatnonzero(np.diff(found.of_row))
    assert len(changes) == len(np.unique(found.of_row)) - 1  # documents are whole


def test_topics_are_left_out_where_nothing_closes_the_documents(texts, tmp_path):
    options = {"block": 1, "n_tokens": 200, "context_length": 16, "separator": None, "split": "all", "verbose": False}
    store = harvest(tiny_model(), texts, out=tmp_path / "activations", **options)
    assert documents_of(store, tiny_tokenizer()) is None
    with pytest.warns(UserWarning, match="cannot be told apart, since no token closes them: topics are left out"):
        results, _ = probe({}, store, tiny_tokenizer(), ks=[1])
    assert {result["level"] for result in results} == {"token"}
    with pytest.raises(ValueError, match="cannot be told apart, since no token closes them: leave the topics out"):
        probe({}, store, tiny_tokenizer(), ks=[1], topic_of={})


def test_topics_are_those_of_the_titles(store, texts, topic_of):
    documents = documents_of(store, tiny_tokenizer())
    found = topics(documents, topic_of)
    assert {documents.title[d]: topic for d, topic in found.items()}.items() <= topic_of.items()
    assert topics(documents, {"another": "x"}) == {}


def test_correlations_are_those_of_numpy():
    random = np.random.default_rng(0)
    Z = random.normal(size=(200, 7)) * (random.random(size=(200, 7)) < 0.3) + [0, 0, 5, 0, 0, 0, 0]
    Z[:, 6] = 3.0
    y = random.random(200) < 0.3
    expected = [abs(np.corrcoef(column, y)[0, 1]) for column in Z.T[:6]]
    for given in (Z, scipy.sparse.csr_matrix(Z)):
        np.testing.assert_allclose(correlations(given, y), [*expected, 0], atol=1e-12)


@pytest.mark.parametrize("build", [np.asarray, scipy.sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("mean", [0, 1000, 100_000])
def test_correlations_do_not_depend_on_the_mean(build, mean):
    random = np.random.default_rng(0)
    y = random.random(500) < 0.3
    Z = (y[:, None] * [0.0, 0.5, 1.0] + random.normal(size=(500, 3)) + mean).astype(np.float32)
    wanted = [abs(np.corrcoef(column, y)[0, 1]) for column in Z.T.astype(np.float64)]
    np.testing.assert_allclose(correlations(build(Z), y), wanted, rtol=1e-4)
    np.testing.assert_array_equal(correlations(build(np.full_like(Z, mean + 0.1)), y), 0)


def test_k_atoms_tell_what_k_atoms_hold():
    random = np.random.default_rng(1)
    Z = scipy.sparse.random(4000, 50, density=0.3, random_state=0, format="csr")
    told = np.asarray(Z[:, [3, 17]].todense())
    y = told[:, 0] + told[:, 1] > 0.4  # each holds a half of it
    is_train = np.arange(4000) < 2000
    found = k_sparse_accuracies(Z, y, is_train, [1, 2, "all"])
    assert found[1] < 0.9
    assert min(found[2], found["all"]) > 0.95
    noise = k_sparse_accuracies(Z, random.random(4000) < 0.5, is_train, [1, 5])
    assert max(abs(accuracy - 0.5) for accuracy in noise.values()) < 0.05
    # what it is told of the second half has no part in the choice
    swapped = y.copy()
    swapped[~is_train] = ~y[~is_train]
    assert k_sparse_accuracies(Z, swapped, is_train, [2])[2] == pytest.approx(1 - found[2])


def test_a_k_above_the_columns_is_left_out_and_one_below_1_is_refused():
    Z = np.random.default_rng(0).normal(size=(200, 3))
    y, is_train = Z[:, 0] > 0, np.arange(200) < 100
    assert list(k_sparse_accuracies(Z, y, is_train, [3, 4, "all"])) == [3, "all"]
    for k in (0, -2):
        with pytest.raises(ValueError, match=f"k must be an integer >= 1, got {k}"):
            k_sparse_accuracies(Z, y, is_train, [k])


def test_the_table_takes_the_seeds_of_one_path_together_and_no_others():
    names = ["a/sae.safetensors", "b/sae.safetensors", "a/sae-0.1", "a/x-seed0.safetensors", "a/x-seed1.safetensors"]
    names += ["of-seed0/a.safetensors", "of-seed0/b.safetensors", "b-seed0/", "b-seed1.npz"]
    shared = {"codes": "signed", "level": "token", "label": "x", "k": 1}
    table = probe_table([{"name": name, **shared, "accuracy": i / 10} for i, name in enumerate(names)])
    assert {line[""]: line["k = 1"] for line in table} == {
        "a/sae.safetensors": "0.000",
        "b/sae.safetensors": "0.100",
        "a/sae-0.1": "0.200",
        "a/x": "0.350 [0.300, 0.400]",
        "of-seed0/a.safetensors": "0.500",
        "of-seed0/b.safetensors": "0.600",
        "b": "0.750 [0.700, 0.800]",
    }


def test_doubled_codes_have_a_column_a_side():
    Z = scipy.sparse.csr_matrix([[1.0, -2.0, 0.0]])
    assert doubled(Z).toarray().tolist() == [[1, 0, 0, 0, 2, 0]]
    # of which one tells what both signs of an atom share with nothing, and the signed atom does not
    z = np.random.default_rng(0).normal(size=(600, 1))
    is_train = np.arange(600) < 300
    either = scipy.sparse.csr_matrix(z)
    y = np.abs(z[:, 0]) > 1
    assert k_sparse_accuracies(either, y, is_train, [1])[1] < 0.6
    assert k_sparse_accuracies(doubled(either), y, is_train, [2])[2] > 0.8


def test_probe_tells_topics_and_its_floor_does_not_select_by_them(store, topic_of):
    saes = {
        f"{name}-seed{seed}": ProxSAE(R, 32, n_steps=60, batch_size=128, random_state=seed).fit(store)
        for name, R in (("abstopk", "Cardinality(4)"), ("topk", "NonNegative + Cardinality(4)"))
        for seed in (0, 1)
    }
    results, left_out = probe(saes, store, tiny_tokenizer(), ks=[1, 4], n_tokens=500, topic_of=topic_of)
    codes = {(r["name"], r["codes"]) for r in results}
    assert codes == {
        ("activations", "activations"),
        *((f"abstopk-seed{s}", c) for s in (0, 1) for c in ("signed", "doubled", "random")),
        *((f"topk-seed{s}", c) for s in (0, 1) for c in ("non-negative", "random")),
    }
    ceiling = {r["label"]: r["accuracy"] for r in results if r["k"] == "all"}
    assert {"odd", "even", POSITION} <= set(ceiling)
    assert not set(ceiling) & set(left_out)
    assert ceiling["odd"] > 0.9
    best = max(
        r["accuracy"] for r in results if r["name"].startswith("abstopk") and r["label"] == "odd" and r["k"] == 4
    )
    assert best > 0.7
    assert "is punctuation" in left_out
    line = next(line for line in probe_table(results) if line["codes"] == "non-negative" and line["labels"] == "topic")
    shown = {"codes": "non-negative", "level": "topic", "k": 4}.items()
    means = [
        np.mean([r["accuracy"] for r in results if r["name"] == name and shown <= r.items()])
        for name in ("topk-seed0", "topk-seed1")
    ]
    assert line["k = 4"] == f"{np.mean(means):.3f} [{min(means):.3f}, {max(means):.3f}]"
    assert line["k = all"] == ""


def test_a_store_of_half_precision_is_probed(texts, tmp_path):
    options = {"block": 1, "n_tokens": 200, "context_length": 16, "split": "all", "verbose": False}
    store = harvest(tiny_model(), texts, out=tmp_path / "activations", dtype="float16", **options)
    sae = sae_of("Cardinality(4)", d=16, p=32)
    results, _ = probe({"sae": sae}, store, tiny_tokenizer(), ks=[1], topic_of={})
    assert {r["codes"] for r in results} == {"activations", "signed", "doubled", "random"}
    dense = sae.set_params(sparse_output=False)
    with config_context(transform_output="pandas"):
        assert probe({"sae": dense}, store, tiny_tokenizer(), ks=[1], topic_of={})[0] == results


def test_of_a_store_of_several_places_the_one_that_is_read_is_probed(store, topic_of):
    two = ActivationStore(store.path)
    options = {"ks": [1], "n_tokens": 100, "topic_of": topic_of}
    reads, other = (
        ProxSAE("Cardinality(4)", 32, n_steps=5, batch_size=128, random_state=0).fit(two.at(x), two.at(y))
        for x, y in (("block.1", "block.2"), ("block.2", "block.1"))
    )
    assert probe({"sae": reads}, two, tiny_tokenizer(), **options) == probe(
        {"sae": reads}, store, tiny_tokenizer(), **options
    )
    with pytest.raises(ValueError, match=r"read at 'block\.1' and 'block\.2': give those of one place at a time"):
        probe({"reads": reads, "other": other}, two, tiny_tokenizer(), **options)
    with pytest.raises(ValueError, match=r"other was fitted on 'block\.2' of .*, but is to be used on 'block\.1'"):
        probe({"other": other}, store, tiny_tokenizer(), **options)
    assert probe({"other": other}, store, tiny_tokenizer(), check_provenance=False, **options)[0]


def test_the_command_writes_every_accuracy(store, topic_of, tmp_path, capsys):
    tiny_transformer().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    sae = tmp_path / "sae.safetensors"
    ProxSAE("Cardinality(4)", 32, n_steps=5, batch_size=128, random_state=0).fit(store).save(sae)
    with (tmp_path / "topics.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerows([("title", "topic"), *topic_of.items()])
    options = ["--activations", str(store.path), "--model", str(tmp_path / "model"), "--tokens", "300"]
    out = tmp_path / "probe.csv"
    (tmp_path / "other").mkdir()
    namesake = shutil.copy(sae, tmp_path / "other")
    command = ["probe", str(sae), namesake, *options, "--topics", str(tmp_path / "topics.csv"), "--out", str(out)]
    assert main([*command, "--k", "1,4"]) == 0
    printed = capsys.readouterr().out
    assert "k = 4" in printed
    assert "left out" in printed
    with out.open() as stream:
        lines = list(csv.DictReader(stream))
    assert {line["codes"] for line in lines} == {"activations", "signed", "doubled", "random"}
    assert {line["name"] for line in lines} == {"activations", str(sae), namesake}
    assert all(0 <= float(line["accuracy"]) <= 1 for line in lines)
    for options, sentence in (
        (["--k", "one"], "--k takes integers of at least 1 with commas between them; got 'one'"),
        (["--k", "1,-2"], "got '1,-2'"),
        (["--k", "33,40"], f"'{sae}' has 32 atoms, and the least k is 33; give a smaller one"),
        (["--rows", "70"], "no label has 20 samples of each class in both halves of the 70 rows, of which at most 300"),
    ):
        assert main([*command, *options]) == 1
        assert sentence in capsys.readouterr().err
