"""Steering: the formula at every token, exact equality without an edit, and a model that is as it was afterwards."""

import numpy as np
import pytest
import torch
from llm_models import one_thread, tiny_model  # noqa: F401
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from small_saes import sae_of

from proxsae import ProxSAE
from proxsae.cli import main
from proxsae.llm import generate, log_probabilities, steer, steered
from proxsae.llm.generate import prompt_ids
from proxsae.report import read_text
from proxsae.training.blocks import FeatureBlocks

PROMPT = "w3 w14 w15 w9 w26"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def tiny_sae(R="Cardinality(8)", **provenance):
    sae = sae_of(R, d=16, p=64)
    sae.provenance_ = {"site": "block.2", **provenance}
    return sae


def hooks(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules()]


def tokens_of(model):
    return torch.tensor([prompt_ids(model, PROMPT), prompt_ids(model, "w1 w2 w3 w4 w5")])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("site", ["block.2", "embed", "mlp_out.3"])
def test_no_edit_changes_no_bit(architecture, site):
    model = tiny_model(architecture)
    tokens, sae = tokens_of(model), tiny_sae()
    sae.provenance_ = {}  # of any place
    plain = model.logits(tokens)
    with steered(model, sae, {}, block=site):
        assert torch.equal(model.logits(tokens), plain)
    with steered(model, sae, {3: 0.0, 5: 0.0}, block=site, mode="add"):
        assert torch.equal(model.logits(tokens), plain)
    with steered(model, sae, {3: 2.0}, block=site):
        assert not torch.allclose(model.logits(tokens), plain)


@pytest.mark.parametrize("mode", ["clamp", "add"])
@pytest.mark.parametrize("R", ["Cardinality(8)", "NonNegative + Cardinality(8)"])
def test_the_rest_of_the_model_sees_x_plus_the_change_of_codes(model, mode, R):
    tokens, sae = tokens_of(model), tiny_sae(R)
    edits = {7: -4.0, 20: 3.0}
    x = model.read(tokens, 2)
    expected = x.clone()
    for text in range(2):
        for position in range(1, tokens.shape[1]):  # 0 is the beginning-of-text token
            z = sae.transform(x[text, position : position + 1].numpy()).toarray()
            new = z.copy()
            for atom, value in edits.items():
                new[0, atom] = value + (z[0, atom] if mode == "add" else 0)
            error = x[text, position].numpy() - sae.inverse_transform(z)[0]
            expected[text, position] = torch.from_numpy(sae.inverse_transform(new)[0] + error)
    with steered(model, sae, edits, mode=mode):
        found = model.logits(tokens)
        seen = model.read(tokens, 2)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, model.logits(tokens, 2, expected), rtol=1e-3, atol=1e-3)
    assert torch.equal(seen[:, 0], x[:, 0])


def test_a_code_clamped_to_what_it_is_changes_no_bit(model):
    tokens, sae = tokens_of(model)[:1, :2], tiny_sae()
    z = sae.transform(model.read(tokens, 2)[0, 1:].numpy()).toarray()[0]
    atom = int(np.argmax(np.abs(z)))
    with steered(model, sae, {atom: float(z[atom])}):
        inside = model.logits(tokens)
    assert torch.equal(inside, model.logits(tokens))


def test_edits_do_not_depend_on_the_container_of_codes(model):
    tokens, sae = tokens_of(model), tiny_sae()
    frames = tiny_sae().set_params(sparse_output=False).set_output(transform="pandas")
    with steered(model, sae, {3: 2.0}):
        expected = model.logits(tokens)
    with steered(model, frames, {3: 2.0}):
        assert torch.equal(model.logits(tokens), expected)
    with config_context(transform_output="pandas"), steered(model, sae, {3: 2.0}):
        assert torch.equal(model.logits(tokens), expected)
    codes = read_text(model, sae, 2, PROMPT).codes
    assert (read_text(model, frames, 2, PROMPT).codes != codes).nnz == 0


def test_massive_rows_stay(model):
    tokens = tokens_of(model)
    x = model.read(tokens, 2)
    norms = x[:, 1:].norm(dim=-1)
    limit = float(norms.median())
    with steered(model, tiny_sae(median_norm=limit / 10), {3: 2.0}):
        changed = (model.read(tokens, 2) != x).any(-1)
    assert torch.equal(changed[:, 1:], norms <= limit)
    assert not changed[:, 0].any()


def test_excluded_tokens_stay(model):
    tokens = tokens_of(model)
    x = model.read(tokens, 2)
    excluded = tokens[0, 2].item()
    with steered(model, tiny_sae(excluded_tokens=[excluded]), {3: 2.0}, mode="add"):
        changed = (model.read(tokens, 2) != x).any(-1)
    assert torch.equal(changed[:, 1:], tokens[:, 1:] != excluded)


def test_the_model_is_left_as_it_was(model):
    tokens, before = tokens_of(model), hooks(model)
    plain = model.logits(tokens)

    def fail_inside():
        with steered(model, tiny_sae(), {3: 2.0}):
            assert hooks(model) != before
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail_inside()
    assert hooks(model) == before
    assert torch.equal(model.logits(tokens), plain)

    class Broken:
        components_, provenance_ = tiny_sae().components_, {"site": "block.2"}

        def transform(self, X):
            raise FloatingPointError("in the autoencoder")

    with pytest.raises(FloatingPointError, match="in the autoencoder"):
        steer(model, Broken(), {3: 2.0}, PROMPT)
    assert hooks(model) == before
    assert torch.equal(model.logits(tokens), plain)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_steered_text_is_the_one_that_whole_passes_give(architecture):
    model, sae = tiny_model(architecture), tiny_sae()
    said = steer(model, sae, {3: 4.0}, PROMPT, n_tokens=8)
    ids = prompt_ids(model, PROMPT)
    with steered(model, sae, {3: 4.0}):
        for token, log_p in zip(said.tokens, said.log_probabilities, strict=True):
            expected = model.logits(torch.tensor([ids]))[0, -1].double().log_softmax(-1)
            assert token == int(expected.argmax())
            assert log_p == pytest.approx(float(expected[token]), abs=1e-4)
            ids.append(int(token))
        assert log_probabilities(model, PROMPT, [said.text]) == pytest.approx(said.log_probabilities.sum(), abs=1e-3)
    assert said.text == model.tokenizer.decode(said.tokens)
    assert (
        steer(model, sae, {}, PROMPT, n_tokens=8).tokens.tolist() == generate(model, PROMPT, n_tokens=8).tokens.tolist()
    )


def test_samples_have_a_seed_of_their_own(model):
    state = torch.get_rng_state()
    first, again, other = (generate(model, PROMPT, n_tokens=12, temperature=1.0, seed=s).text for s in (0, 0, 1))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)
    greedy = generate(model, PROMPT, n_tokens=12)
    assert generate(model, PROMPT, n_tokens=12, temperature=1e-6).text == greedy.text


def test_samples_follow_the_probabilities(model):
    drawn = [generate(model, PROMPT, n_tokens=1, temperature=2.0, seed=s).tokens for s in range(300)]
    counts = np.bincount([tokens[0] for tokens in drawn if len(tokens)], minlength=63)
    p = (model.logits(torch.tensor([prompt_ids(model, PROMPT)]))[0, -1].double() / 2.0).softmax(-1).numpy()
    top = np.argsort(-p)[:3]
    assert p[top[0]] > 0.02
    assert np.abs(counts[top] / 300 - p[top]).max() < 4 * np.sqrt(0.25 / 300)


@pytest.mark.parametrize(
    ("edits", "options", "sentence"),
    [
        ({64: 1.0}, {}, "atom 64 was given; the autoencoder has atoms 0 to 63"),
        ({-1: 1.0}, {}, "atom -1 was given"),
        ([1], {}, r"edits must be a dict from atom to value, such as \{12: 80.0\}, got list"),
        ({3: float("nan")}, {}, "a finite number is needed"),
        ({3: 1e39}, {}, "a finite number is needed, which float32 holds"),
        ({3: 10**400}, {}, "a finite number is needed, which float32 holds"),
        ({3: 3e38}, {}, "the logits of tiny llama hold NaN or infinity"),
        ({3: 1.0}, {"mode": "set"}, 'mode must be "clamp" or "add"'),
        ({3: 1.0}, {"block": 9}, "numbered from 1 to 4"),
        ({3: 1.0}, {"n_tokens": 0}, "n_tokens=0 was given"),
        ({3: 1.0}, {"n_tokens": 60}, "reads at most 64 at once"),
        ({3: 1.0}, {"temperature": -1.0}, "temperature=-1.0 was given"),
    ],
)
def test_mistakes_are_one_sentence(model, edits, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        steer(model, tiny_sae(), edits, PROMPT, **options)
    assert sum(hooks(model)) == 0


def test_an_autoencoder_from_elsewhere_is_refused(model):
    nowhere = tiny_sae()
    nowhere.provenance_ = {}
    with pytest.raises(ValueError, match="give block"):
        steer(model, nowhere, {}, PROMPT)
    elsewhere = tiny_sae(model="another", weights="float32:0")
    with pytest.raises(ValueError, match=r"was fitted on 'block\.2' of another"):
        steer(model, elsewhere, {}, PROMPT)
    assert steer(model, elsewhere, {}, PROMPT, n_tokens=1, check_provenance=False).tokens.shape == (1,)
    with pytest.raises(ValueError, match="normalised first"):
        steer(model, tiny_sae(normalised_rows="layer norm"), {}, PROMPT)
    transcoder = tiny_sae()
    transcoder.is_transcoder_ = True
    with pytest.raises(ValueError, match="the model is a transcoder"):
        steer(model, transcoder, {}, PROMPT)
    crosscoder = tiny_sae(site="block.2 block.3")
    crosscoder.blocks_ = FeatureBlocks((8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match="the model is a crosscoder"):
        steer(model, crosscoder, {}, PROMPT)
    with pytest.raises(ValueError, match=r"is of 'block\.2 block\.3' side by side, so no edit of one place follows"):
        steer(model, tiny_sae(site="block.2 block.3"), {}, PROMPT)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        steer(model, ProxSAE(), {}, PROMPT, block=2)
    with pytest.raises(TypeError, match="model must be a LanguageModel, such as load_model returns, got a NoneType"):
        steer(None, tiny_sae(), {}, PROMPT)
    with pytest.raises(ValueError, match="has no token"):
        log_probabilities(model, PROMPT, [""])
    with pytest.raises(TypeError, match="continuations must be a list of texts, got the text ' w1'"):
        log_probabilities(model, PROMPT, " w1")
    with steered(model, tiny_sae(), {3: 3e38}), pytest.raises(ValueError, match="the logits of tiny llama hold NaN"):
        log_probabilities(model, PROMPT, [" w1"])


@pytest.mark.parametrize("text", [b"w1 \xff".decode(errors="surrogateescape"), "w1 \ud83d"])
def test_half_of_a_character_is_no_text(model, text):
    with pytest.raises(ValueError, match=r"^character 4 of the text 'w1 .*' is a byte that is no UTF-8, or half of a"):
        generate(model, text)
    with pytest.raises(ValueError, match=r"^character 4 of the text"):
        log_probabilities(model, PROMPT, [text])
    with pytest.raises(ValueError, match=r"^character 4 of the text"):
        read_text(model, tiny_sae(), 2, text)


def test_the_command_prints_both_texts(model, tmp_path, capsys):
    folder = tmp_path / "model"
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    path = tmp_path / "sae.safetensors"
    tiny_sae().save(path)
    arguments = ["steer", str(path), "--model", str(folder), "--prompt", PROMPT, "--tokens", "6", "--block", "2"]
    capsys.readouterr()
    assert main([*arguments, "--atom", "3=40", "--atom", "9=1", "--atom", "3=40"]) == 1
    assert capsys.readouterr().err == "proxsae steer: --atom 3 was given 2 times; give one value for it\n"
    assert main([*arguments, "--atom", "3=40", "--atom", "9=-40"]) == 0
    printed = capsys.readouterr().out
    plain = generate(model, PROMPT, n_tokens=6)
    edited = steer(model, tiny_sae(), {3: 40.0, 9: -40.0}, PROMPT, n_tokens=6)
    assert plain.text != edited.text
    assert printed == "".join(
        f"{title}\n{PROMPT}{one.text}\nlog p {one.log_probabilities.mean():.2f} nats a token\n\n"
        for title, one in (("baseline", plain), ("steered: 40 at atom 3, -40 at atom 9", edited))
    )
    assert main([*arguments, "--add", "--atom", "3=40", "--atom", "9=-40"]) == 0
    assert "steered: +40 at atom 3, -40 at atom 9\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--atom", "three"])
    assert "'three' is no edit such as 12=5" in capsys.readouterr().err
