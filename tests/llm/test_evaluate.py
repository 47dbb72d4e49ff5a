import numpy as np
import pytest
import scipy.sparse
import torch
from llm_models import one_thread, tiny_model, tiny_texts, tiny_tokenizer  # noqa: F401
from small_saes import UntiedGate

from proxsae import ProxSAE
from proxsae.data.stream import ShuffledRows
from proxsae.formats import SAEWithoutProx
from proxsae.llm import ActivationStore, LanguageModel, documents, evaluate, harvest
from proxsae.llm.contexts import batches, pack
from proxsae.metrics import ReconstructionSums, reconstruction_metrics
from proxsae.report import explorer_page, read_text
from proxsae.studies.probing import probe

OPTIONS = {"block": 2, "n_tokens": 150, "context_length": 16, "batch_size": 3, "split": "all", "verbose": False}


class Linear:
    """Codes z = (x - b) W, thresholded; reconstruction z D + b."""

    def __init__(self, scale=1.0, sparse=True, n_features=16):
        random = np.random.default_rng(1)
        self.W = random.normal(size=(n_features, 24)) * scale
        self.D = random.normal(size=(24, n_features)) / 24
        self.W[:, :3] = 0
        self.sparse = sparse

    def transform(self, X):
        Z = X @ self.W
        Z[np.abs(Z) < 1] = 0
        return scipy.sparse.csr_matrix(Z) if self.sparse else Z

    def inverse_transform(self, Z):
        return Z @ self.D


class Function:
    def __init__(self, function):
        self.function = function

    def transform(self, X):
        return X

    def inverse_transform(self, Z):
        return self.function(Z)


@pytest.fixture(scope="module")
def model():
    return tiny_model("gemma2")


@pytest.fixture(scope="module")
def texts():
    return tiny_texts()


def test_reconstruction_metrics_are_their_formulas():
    X = np.random.default_rng(0).normal(size=(103, 16)) * 5 + 1000
    sae = Linear()
    Z = sae.transform(X).toarray()
    error = np.square(X - Z @ sae.D).sum()
    expected = {
        "mse": error / X.size,
        "fvu": error / np.square(X - X.mean(axis=0)).sum(),
        "explained_variance": 1 - error / np.square(X - X.mean(axis=0)).sum(),
        "l0": (Z != 0).sum(axis=1).mean(),
        "dead_fraction": (Z == 0).all(axis=0).mean(),
    }
    assert expected["dead_fraction"] > 0
    for batch_size in (10, 103, 4096):
        for sparse in (True, False):
            found = reconstruction_metrics(Linear(sparse=sparse), X, batch_size=batch_size)
            assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", [np.ndarray.tolist, torch.from_numpy, lambda X: torch.from_numpy(X).bfloat16()])
def test_rows_are_those_that_fit_takes(kind):
    X = np.random.default_rng(0).integers(-9, 9, size=(30, 16)).astype(np.float32)  # which bfloat16 holds
    assert reconstruction_metrics(Linear(), kind(X), batch_size=8) == pytest.approx(reconstruction_metrics(Linear(), X))


def test_a_stored_zero_is_a_zero():
    codes = scipy.sparse.csr_matrix((np.array([1.0, 0.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 3))

    class Stored:
        def transform(self, X):
            return codes

        def inverse_transform(self, Z):
            return np.zeros((1, 2))

    found = reconstruction_metrics(Stored(), np.ones((1, 2)))
    assert found["l0"] == 1
    assert found["dead_fraction"] == pytest.approx(2 / 3)
    assert (found["fvu"], found["explained_variance"]) == (1, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_rows_are_reconstructed_up_to_the_rounding_of_their_dtype(dtype):
    X = np.tile(np.array([3.1, -0.7, 5.3], dtype), (10, 1))

    class Rounded:
        error = 1.0

        def transform(self, X):
            return np.ones((len(X), 1), dtype)

        def inverse_transform(self, Z):
            return X * (1 + dtype(self.error) * np.finfo(dtype).eps)

    assert reconstruction_metrics(Rounded(), X)["fvu"] == 0
    Rounded.error = 1000.0
    assert reconstruction_metrics(Rounded(), X)["fvu"] == 1


def test_metrics_of_a_store(model, texts, tmp_path):
    store = harvest(model, texts, block=2, n_tokens=100, out=tmp_path, context_length=16, verbose=False)
    assert reconstruction_metrics(Linear(), store, batch_size=30) == pytest.approx(
        reconstruction_metrics(Linear(), store[:])
    )


def test_the_identity_recovers_all_and_zero_nothing(model, texts):
    saes = {"identity": Function(lambda x: x), "zero": Function(np.zeros_like), "half": Function(lambda x: x / 2)}
    found = evaluate(model, saes, texts, **OPTIONS)
    assert found["identity"]["loss_recovered"] == 1
    assert found["identity"]["kl"] == 0
    assert found["identity"]["fvu"] == found["identity"]["mse"] == 0
    assert found["zero"]["loss_recovered"] == 0
    assert found["zero"]["kl"] > 0
    assert found["half"] == evaluate(model, saes["half"], texts, **OPTIONS)


def test_a_model_in_bfloat16(texts):
    model = tiny_model()
    model.model.to(torch.bfloat16)
    found = evaluate(model, Function(lambda x: x), texts, **OPTIONS)
    assert (found["loss_recovered"], found["kl"]) == (1, 0)


@pytest.mark.parametrize("drop", [0, [0, 3]])
def test_losses_are_those_of_whole_forward_passes(model, texts, drop):
    sae = Linear(0.5)
    found = evaluate(model, sae, texts, drop=drop, **OPTIONS)
    positions = range(drop) if isinstance(drop, int) else drop
    sums = {"clean": 0.0, "spliced": 0.0, "zero": 0.0}
    kl, n_predictions, x = 0.0, 0, []
    for batch in batches(pack(documents(texts), model.tokenizer, 16), model.tokenizer, 16, 3):
        if sum(map(len, x)) >= OPTIONS["n_tokens"]:
            break
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        kept = tokens > 2
        kept[:, list(positions)] = False

        def splice(residual, kept=kept):
            rows = residual[kept].numpy()
            x.append(rows)
            out = residual.clone()
            out[kept] = torch.from_numpy(sae.inverse_transform(sae.transform(rows))).float()
            return out

        def ablate(residual, kept=kept):
            return residual.masked_fill(kept[..., None], 0.0)

        log_p = {"clean": model.logits(tokens)}
        with model.replaced(2, splice):
            log_p["spliced"] = model.logits(tokens)
        with model.replaced(2, ablate):
            log_p["zero"] = model.logits(tokens)
        log_p = {name: logits[:, :-1].double().log_softmax(-1) for name, logits in log_p.items()}
        for name, values in log_p.items():
            sums[name] -= values.gather(-1, tokens[:, 1:, None]).sum().item()
        kl += (log_p["clean"].exp() * (log_p["clean"] - log_p["spliced"])).sum().item()
        n_predictions += tokens[:, 1:].numel()
    assert found["n_predictions"] == n_predictions
    for name, total in sums.items():
        assert found[f"cross_entropy_{name}"] == pytest.approx(total / n_predictions, rel=1e-5)
    assert found["kl"] == pytest.approx(kl / n_predictions, rel=1e-4)
    recovered = (sums["zero"] - sums["spliced"]) / (sums["zero"] - sums["clean"])
    assert found["loss_recovered"] == pytest.approx(recovered, rel=1e-3)
    rows = np.concatenate(x)
    assert found["n_tokens"] == len(rows)
    assert {key: found[key] for key in ("mse", "fvu", "l0")} == pytest.approx(
        {key: value for key, value in reconstruction_metrics(sae, rows).items() if key in ("mse", "fvu", "l0")},
        rel=1e-5,
    )


def test_padding_is_no_prediction(model):
    options = OPTIONS | {"n_tokens": 7, "drop": 0}
    found = evaluate(model, Function(lambda x: x), ["w1 w2 w3 w4 w5 w6 w7"], **options)
    # seven words and the end of the text are predicted
    assert (found["n_tokens"], found["n_predictions"]) == (7, 8)


def test_massive_rows_stay_clean(model, texts):
    def grow(_module, _args, output):
        output = output.clone()
        output[:, 0] *= 1000
        output[1, 5] *= 1000
        return output

    seen = []
    model = tiny_model()
    model.blocks[1].register_forward_hook(grow)
    evaluate(model, Function(lambda x: seen.append(x) or x), texts, **OPTIONS)
    assert np.linalg.norm(np.concatenate(seen), axis=1).max() < 1000
    with pytest.warns(UserWarning, match="times as long as the median row"):
        evaluate(model, Function(lambda x: x), texts, drop=1, **OPTIONS)


def test_a_text_that_ends_early(model, texts):
    with pytest.warns(UserWarning, match="ended after .* of the 150 tokens asked for"):
        evaluate(model, Function(lambda x: x), texts[:5], **OPTIONS)
    with pytest.raises(ValueError, match="gave no token to evaluate on"):
        evaluate(model, Function(lambda x: x), [], **OPTIONS)


def _fitted(n_features):
    sae = Linear()
    sae.n_features_in_ = n_features
    return sae


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        ({}, "sae is an empty dict"),
        ({"mine": _fitted(5)}, "mine was fitted on 5 features, but 'block.2' of tiny gemma2 has 16"),
        (Function(lambda z: z[:, :3]), "sae.inverse_transform gave shape"),
        (Function(lambda z: z * np.nan), "sae reconstructs NaN or infinity"),
    ],
)
def test_wrong_autoencoders(model, texts, sae, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, sae, texts, **OPTIONS)


def test_wrong_arguments(model, texts):
    for wrong in ({"block": 9}, {"n_tokens": 0}, {"batch_size": 0}, {"drop": 99}, {"split": "x"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            evaluate(model, Linear(), texts, **(OPTIONS | wrong))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        reconstruction_metrics(Linear(), np.ones(3))
    with pytest.raises(ValueError, match="0 sample"):
        reconstruction_metrics(Linear(), np.ones((0, 16)))
    with pytest.raises(ValueError, match="asked of no rows"):
        ReconstructionSums().result()
    with pytest.raises(ValueError, match="X contains NaN or infinity: row 0 of 2"):
        reconstruction_metrics(Linear(), np.full((2, 16), np.inf))
    with pytest.raises(TypeError, match=r"X must be a matrix of shape .*, got ShuffledRows"):
        reconstruction_metrics(Linear(), ShuffledRows(np.ones((2, 16))))


def test_the_metrics_of_equal_rows():
    X = np.full((7, 3), 0.1)
    found = reconstruction_metrics(Function(lambda x: x), X, batch_size=3)
    assert (found["fvu"], found["explained_variance"]) == (0, 1)
    found = reconstruction_metrics(Function(lambda x: x + 0.1), X, batch_size=3)
    assert (found["fvu"], found["explained_variance"]) == (1, 0)


def test_one_token_has_no_next(model):
    options = OPTIONS | {"drop": 0}
    model = LanguageModel(model.model, tiny_tokenizer(special=False), "bare")
    with pytest.raises(ValueError, match="holds one token, so there is no next token to predict"):
        evaluate(model, Function(lambda x: x), ["w1"], **options)
    with pytest.raises(ValueError, match="gave no token to evaluate on"):
        evaluate(model, Function(lambda x: x), ["", " "], **options)


def test_contexts_without_text_are_passed_over(model, texts):
    alone = evaluate(model, Linear(0.5), texts, **OPTIONS, seed=None)
    batch_of_nothing = "</s> " * (15 * 3 * 40 - 1)  # closed by one more
    after = evaluate(model, Linear(0.5), [batch_of_nothing, *texts], **OPTIONS, seed=None)
    assert after == pytest.approx(alone)


@pytest.mark.parametrize("site", ["embed", "mlp_out.2", "attn_out.3", "block.4"])
def test_other_sites(model, texts, site):
    saes = {"identity": Function(lambda x: x), "zero": Function(np.zeros_like)}
    found = evaluate(model, saes, texts, **(OPTIONS | {"block": site}))
    assert (found["identity"]["loss_recovered"], found["identity"]["kl"]) == (1, 0)
    assert found["zero"]["loss_recovered"] == 0
    assert found["zero"]["kl"] > 1e-3


def test_an_autoencoder_of_another_place_is_refused(model, texts, tmp_path):
    def fitted(provenance):
        sae = Linear()
        sae.provenance_ = provenance
        return sae

    info = harvest(model, texts, block=2, n_tokens=50, out=tmp_path, context_length=16, verbose=False).info
    own = evaluate(model, fitted(info), texts, **OPTIONS)
    anywhere = {name: value for name, value in OPTIONS.items() if name != "block"}
    assert evaluate(model, fitted(info), texts, **anywhere) == own
    with pytest.raises(ValueError, match="mine does not say where its activations come from; give block"):
        evaluate(model, {"first": fitted(info), "mine": Linear()}, texts, **anywhere)
    with pytest.raises(ValueError, match=r"first is of 'block\.2', mine is of 'block\.3'; give block"):
        evaluate(model, {"first": fitted(info), "mine": fitted(info | {"site": "block.3"})}, texts, **anywhere)
    assert own == evaluate(model, fitted({}), texts, **OPTIONS) == evaluate(model, Linear(), texts, **OPTIONS)
    assert evaluate(model, fitted(info | {"model": "a path to the same"}), texts, **OPTIONS) == own
    other = tiny_model("gemma3").fingerprint()
    for provenance, sentence in (
        (
            info | {"site": "block.3"},
            r"mine was fitted on 'block\.3' of tiny gemma2, but .* on 'block\.2' of",
        ),
        (info | {"weights": other}, "of tiny gemma2 with other weights, but"),
        (info | {"weights": other, "model": "gemma3"}, r"fitted on 'block\.2' of gemma3, but .* of tiny gemma2"),
        (info | {"weights": "bfloat16:1", "model": "gemma3"}, r"fitted on 'block\.2' of gemma3, but"),
        # what the file of another library says
        ({"model": "google/gemma-3-1b"}, r"fitted on 'some place' of google/gemma-3-1b, but .* of tiny gemma2"),
        ({"model": "owner/tiny gemma2", "site": "block.3"}, r"fitted on 'block\.3' of owner/tiny gemma2, but"),
        ({"site": "block.3"}, r"fitted on 'block\.3' of some model, but .* on 'block\.2' of tiny gemma2"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate(model, {"mine": fitted(provenance)}, texts, **OPTIONS)
        assert evaluate(model, fitted(provenance), texts, check_provenance=False, **OPTIONS) == own
    for provenance in ({"site": 3, "model": "owner/Tiny Gemma2"}, {"site": "block.2", "weights": 7}):
        assert evaluate(model, fitted(provenance), texts, **OPTIONS) == own
    # the same model in another precision has other weights, and its name decides
    assert evaluate(model, fitted(info | {"weights": "bfloat16:1"}), texts, **OPTIONS) == own


class Layer:
    """The MLP of a block as a transcoder: its codes are what it reads."""

    is_transcoder_ = True

    def __init__(self, mlp, provenance=None):
        self.mlp, self.provenance_ = mlp, provenance or {}

    def transform(self, X):
        return X

    @torch.inference_mode()
    def inverse_transform(self, Z):
        return self.mlp(torch.from_numpy(Z)).numpy()


def test_a_transcoder_takes_the_place_of_its_layer(model, texts, tmp_path):
    places = {"reads": "mlp_in.2", "block": "mlp_out.2"}
    mlp = model.blocks[1].mlp
    saes = {"layer": Layer(mlp), "identity": Function(lambda x: x), "zero": Function(lambda x: 0 * x)}
    found = evaluate(model, saes, texts, **(OPTIONS | places))
    assert found["layer"]["loss_recovered"] == pytest.approx(1, abs=1e-4)
    assert found["layer"]["fvu"] < 1e-10
    assert found["identity"]["fvu"] == 0
    assert found["zero"]["loss_recovered"] == 0
    alone = evaluate(model, saes["identity"], texts, **(OPTIONS | {"block": "mlp_out.2"}))
    assert found["identity"]["n_tokens"] == alone["n_tokens"]

    store = harvest(
        model, texts, hook=list(places.values()), n_tokens=300, context_length=16, out=tmp_path / "s", verbose=False
    )
    X, Y = (store.at(place) for place in places.values())
    sae = ProxSAE("Cardinality(8)", 64, n_steps=150, skip_connection=True, random_state=0).fit(X, Y)
    options = OPTIONS | {"block": "mlp_out.2"}
    own = evaluate(model, sae, texts, **options)
    assert evaluate(model, sae, texts, **{name: value for name, value in OPTIONS.items() if name != "block"}) == own
    assert own["l0"] == 8
    assert own["loss_recovered"] > 0.2  # beyond 1, too: the weights of this model are random
    assert reconstruction_metrics(sae, X, Y)["explained_variance"] == pytest.approx(sae.score(X, Y), rel=1e-5)
    with pytest.raises(ValueError, match=r"was fitted on 'mlp_out.2' of .*, but is to be used on 'mlp_out.3'"):
        evaluate(model, sae, texts, **(options | {"block": "mlp_out.3"}))
    with pytest.raises(ValueError, match=r"was fitted on 'mlp_in.2' of .*, but is to be used on 'mlp_in.3'"):
        evaluate(model, sae, texts, reads="mlp_in.3", **options)
    with pytest.raises(ValueError, match="does not say where its activations come from; give reads"):
        evaluate(model, Layer(mlp), texts, **options)
    both = {"one": Layer(mlp, {"site": "mlp_in.2"}), "two": Layer(mlp, {"site": "mlp_in.3"})}
    with pytest.raises(ValueError, match=r"one is of 'mlp_in\.2', two is of 'mlp_in\.3'; give reads"):
        evaluate(model, both, texts, check_provenance=False, **options)


def test_several_places_are_replaced_one_at_a_time(model, texts):
    places = ["mlp_out.2", "block.3"]
    saes = {"identity": Function(lambda x: x), "most": Function(lambda x: 0.9 * x), "zero": Function(np.zeros_like)}
    options = OPTIONS | {"drop": 0}
    found = evaluate(model, saes, texts, **(options | {"block": places}))
    assert found == evaluate(model, saes, texts, **(options | {"block": " ".join(places)}))
    for place in places:
        alone = evaluate(model, saes, texts, **(options | {"block": place}))
        for name in saes:
            codes = ("l0", "dead_fraction")  # which are of both places
            of_place = {key: value for key, value in found[name][place].items() if key not in codes}
            assert of_place == pytest.approx({key: alone[name][key] for key in of_place}, rel=1e-6)
    assert evaluate(model, saes["most"], texts, **(options | {"block": places})) == found["most"]


def test_a_crosscoder_in_a_language_model(model, texts, tmp_path):
    places = ["block.2", "mlp_out.3"]
    options = {"context_length": 16, "drop": 0, "split": "all", "verbose": False}
    store = harvest(model, texts, hook=places, n_tokens=300, out=tmp_path / "two", **options)
    sae = ProxSAE(
        "Cardinality(8)", 96, blocks=store.info["widths"], n_steps=150, learning_rate=2e-3, random_state=0
    ).fit(store)
    found = evaluate(model, sae, texts, block=store.info["site"], n_tokens=150, batch_size=3, **options)
    assert list(found) == places
    n_rows = found["block.2"]["n_tokens"]
    again = harvest(model, texts, hook=places, n_tokens=n_rows, batch_size=3, out=tmp_path / "same", **options)
    expected = reconstruction_metrics(sae, again)
    for place, fvu in zip(places, expected["fvu_of_blocks"], strict=True):
        assert found[place]["fvu"] == pytest.approx(fvu, rel=1e-5)
        assert found[place]["l0"] == expected["l0"] == 8
        assert found[place]["loss_recovered"] > 0.2
    with pytest.raises(ValueError, match=r"on 'block\.2 mlp_out\.3' of .*, but is to be used on 'mlp_out\.3 block\.2'"):
        evaluate(model, sae, texts, block=places[::-1], n_tokens=150, **options)
    with pytest.raises(ValueError, match=r"was fitted on 32 features, but 'block\.2' of tiny gemma2 has 16"):
        evaluate(model, sae, texts, block="block.2", check_provenance=False, n_tokens=150, **options)


@pytest.mark.parametrize("rows", ["layer_norm", "unit_mean_square"])
def test_rows_are_normalised_for_a_model_of_such(model, texts, rows):
    """As the library of the model has it: normalised first, and undone with the reconstruction."""

    class Normalised(Function):
        provenance_ = {"normalised_rows": rows}  # noqa: RUF012

        def transform(self, X):
            np.testing.assert_allclose(np.linalg.norm(X, axis=1), np.sqrt(16 - (rows == "layer_norm")), rtol=1e-3)
            assert rows != "layer_norm" or np.abs(X.mean(axis=1)).max() < 1e-5
            return X

    found = evaluate(model, Normalised(lambda z: z), texts, **OPTIONS)
    assert found["fvu"] < 1e-8
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-4)


def test_what_has_no_prox_is_evaluated(model, texts):
    random = torch.Generator().manual_seed(0)
    G, W, D = (torch.randn(24, 16, generator=random) / 4 for _ in range(3))
    sae = SAEWithoutProx(D, torch.zeros(16), UntiedGate(G, torch.zeros(24), W, torch.zeros(24)))
    found = evaluate(model, sae, texts, **OPTIONS)
    assert 0 < found["l0"] < 24
    assert np.isfinite(found["loss_recovered"])


def test_what_has_raw_rows_alone_refuses_a_model_of_others(model):
    class Normalised(Linear):
        provenance_ = {"normalised_rows": "layer_norm"}  # noqa: RUF012

    sentence = r"is for rows that are normalised first \(layer_norm\), and would be given raw ones"
    with pytest.raises(ValueError, match=f"the autoencoder {sentence}"):
        explorer_page(Normalised(), object.__new__(ActivationStore), model, title="")
    with pytest.raises(ValueError, match=f"the autoencoder {sentence}"):
        read_text(None, Normalised(), 2, "w1")
    with pytest.raises(ValueError, match=f"mine {sentence}"):
        probe({"mine": Normalised()}, None, None)
