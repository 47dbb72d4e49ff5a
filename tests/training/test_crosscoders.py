"""Crosscoders: blocks of features, each in units of its own, and atoms whose norm is the sum over their blocks."""

import pickle

import numpy as np
import pytest
import torch

from proxsae import ProxSAE
from proxsae.data.stream import ShuffledRows
from proxsae.dictionary import error_split, matched_cosine
from proxsae.encoders import Solved, Unrolled
from proxsae.formats import save
from proxsae.metrics import reconstruction_metrics
from proxsae.regularizers import L1, Cardinality, NonNegative
from proxsae.training import FeatureBlocks, Matryoshka
from proxsae.training.optimizer import adam, move

pytestmark = pytest.mark.filterwarnings("ignore:.* rows have a norm of more than 10 times")

SIZES = [6, 10]
SHARED, FIRST, SECOND = 8, 6, 6  # atoms of both blocks, of one alone


def small(R=None, **options):
    options = {"n_steps": 40, "batch_size": 100, "random_state": 0, "blocks": SIZES, **options}
    return ProxSAE(R if R is not None else Cardinality(3), 24, **options)


@pytest.fixture(scope="module")
def truth():
    """Rows of atoms that live in both blocks or in one, the second block a hundred times as large."""
    random = np.random.default_rng(0)
    D = random.normal(size=(SHARED + FIRST + SECOND, 16))
    D[SHARED : SHARED + FIRST, 6:] = 0
    D[SHARED + FIRST :, :6] = 0
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    Z = random.exponential(size=(3000, len(D))) * (random.random((3000, len(D))) < 0.1)
    return D, (Z @ D) * np.repeat([1.0, 100.0], SIZES) + 5


@pytest.fixture(scope="module")
def fitted(truth):
    return small(0.2 * L1() + NonNegative(), n_steps=600, learning_rate=1e-2).fit(truth[1])


def test_the_norm_of_an_atom_is_the_sum_over_its_blocks(fitted):
    norms = np.stack([np.linalg.norm(fitted.components_[:, block], axis=1) for block in fitted.blocks_.columns], 1)
    np.testing.assert_allclose(norms.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(fitted.blocks_.shares(fitted.components_), norms, atol=1e-6)
    assert fitted.blocks_.sizes == (6, 10)
    assert 50 < fitted.blocks_.scales[1] / fitted.blocks_.scales[0] < 200


def test_atoms_are_found_in_the_blocks_that_they_live_in(fitted, truth):
    D, X = truth
    wanted = D / np.linalg.norm(D, axis=1, keepdims=True)
    scaled = D * np.repeat([1.0, 100.0], SIZES) / np.repeat(fitted.blocks_.scales, SIZES)
    wanted = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    used = fitted.transform(X).getnnz(axis=0) > 30
    found = fitted.components_[used] / np.linalg.norm(fitted.components_[used], axis=1, keepdims=True)
    assert matched_cosine(found, wanted) > 0.9
    nearest = np.argmax(wanted @ found.T, axis=1)
    shares = fitted.blocks_.shares(fitted.components_[used])[nearest, 0]
    assert shares[SHARED : SHARED + FIRST].min() > 0.9
    assert shares[SHARED + FIRST :].max() < 0.1
    assert 0.1 < np.median(shares[:SHARED]) < 0.9
    both = reconstruction_metrics(fitted, X)["fvu_of_blocks"]
    assert max(both) < 0.2
    X64 = np.asarray(X, dtype=np.float64)
    for block, fvu in zip(fitted.blocks_.columns, both, strict=True):
        error = (X64 - fitted.predict(X))[:, block]
        assert fvu == pytest.approx((error**2).sum() / ((X64 - X64.mean(0))[:, block] ** 2).sum(), rel=1e-6)


def test_the_constraint_is_the_penalty_of_the_sum_of_decoder_norms(fitted, truth):
    # Lindsey et al.: 1/2 sum_b |x^b - zD^b|^2 + lam sum_i |z_i| sum_b |d_i^b|, the same for (c z_i, d_i / c)
    X = truth[1][:50]
    Z = fitted.transform(X).toarray()
    c = np.random.default_rng(1).uniform(0.5, 2, size=24)
    norms = fitted.blocks_.norms(torch.from_numpy(fitted.components_ / c[:, None])).numpy()
    penalty = 0.2 * (Z * c) @ norms.sum(1)
    np.testing.assert_allclose(fitted.regularizer_.value(Z), penalty, rtol=1e-5)
    units = np.repeat(fitted.blocks_.scales, SIZES)
    residual = X / units - fitted.intercept_ - Z @ fitted.components_
    np.testing.assert_allclose(fitted.predict(X), X - residual * units, rtol=1e-6)
    refined = fitted.refine(X)
    np.testing.assert_allclose(refined.before, 0.5 * (residual**2).sum(1) + penalty, rtol=1e-5)
    assert refined.certificate_kind == "duality gap"
    centred = X / units - (X / units).mean(0)
    assert fitted.score(X) == pytest.approx(1 - (residual**2).sum() / (centred**2).sum(), rel=1e-6)


def test_a_step_follows_the_gradient_of_the_loss_of_normalised_atoms():
    blocks = FeatureBlocks((2, 3), (1.0, 1.0))
    atoms = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    free = atoms.clone().requires_grad_()
    (free / blocks.norm(free)).mul(target).sum().backward()
    on = (atoms / blocks.norm(atoms)).requires_grad_()
    on.mul(target).sum().backward()
    removed = on.grad - (on.grad * on).sum(1, keepdim=True) * blocks.slope(on.detach())
    torch.testing.assert_close(removed, free.grad * blocks.norm(atoms))
    before = on.detach().clone()
    move(adam(torch.nn.ParameterList([on])), on, 1e-3, blocks)
    torch.testing.assert_close(blocks.norm(on.detach()), torch.ones(4, 1, dtype=torch.float64))
    assert (on.detach() * target).sum() < (before * target).sum()
    torch.testing.assert_close(FeatureBlocks.one(5).norm(atoms), torch.linalg.vector_norm(atoms, dim=1, keepdim=True))


def test_the_units_of_a_block_are_its_own(truth):
    X = truth[1]
    scale, shift = np.repeat([7.0, 0.01], SIZES), np.repeat([3.0, -2.0], SIZES)
    one, other = small().fit(X), small().fit(X * scale + shift)
    np.testing.assert_allclose(other.components_, one.components_, atol=1e-6)
    np.testing.assert_allclose(other.predict(X * scale + shift), one.predict(X) * scale + shift, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other.score(X * scale + shift), one.score(X), rtol=1e-6)
    Z = one.transform(X)
    np.testing.assert_allclose(one.inverse_transform(Z), one.predict(X), rtol=1e-5, atol=1e-5)


def test_one_block_is_a_plain_autoencoder(truth):
    X = truth[1]
    np.testing.assert_array_equal(
        ProxSAE(Cardinality(3), 24, n_steps=5, random_state=0).fit(X).components_,
        ProxSAE(Cardinality(3), 24, n_steps=5, random_state=0, blocks=[16]).fit(X).components_,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"loss": Matryoshka((8, 24))},
        {"encoder": Unrolled(2)},
        {"encoder": Solved(), "update": "gradient", "n_steps": 3},
        {"R": Cardinality(3, "batch")},
        {"dead_after": 200},
    ],
)
def test_every_architecture_takes_blocks(truth, options):
    sae = small(**{"R": Cardinality(3), **options}).fit(truth[1])
    assert sae.score(truth[1]) > 0.1
    np.testing.assert_allclose(sae.blocks_.norms(torch.from_numpy(sae.components_)).sum(1), 1, atol=1e-6)


def test_targets_have_blocks_too(truth):
    X, Y = truth[1][:, :6], truth[1]
    sae = small(skip_connection=True).fit(X, Y)
    assert sae.predict(X).shape == Y.shape
    other = small(skip_connection=True).fit(X, Y * np.repeat([1.0, 0.01], SIZES))
    np.testing.assert_allclose(other.score(X, Y * np.repeat([1.0, 0.01], SIZES)), sae.score(X, Y), rtol=1e-4)
    fvu = np.square(Y - sae.predict(X)).sum() / np.square(Y - Y.mean(0)).sum()
    assert reconstruction_metrics(sae, X, Y)["fvu"] == pytest.approx(fvu, rel=1e-5)


def test_given_atoms_are_in_the_units_of_the_data(truth):
    X, D = truth[1], np.random.default_rng(1).normal(size=(24, 16))
    sae = small(update="frozen", n_steps=1).fit(X, init=D)
    found = sae.inverse_transform(np.eye(24)) - sae.inverse_transform(np.zeros((1, 24)))
    cosines = (found * D).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(D, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-6)
    np.testing.assert_allclose(sae.blocks_.norms(torch.from_numpy(sae.components_)).sum(1), 1, atol=1e-6)


def test_files_pickles_checkpoints_and_going_on_keep_the_blocks(truth, tmp_path):
    X = truth[1]
    options = {"checkpoint_dir": tmp_path / "c", "checkpoint_every": 20}
    sae = small(**options).fit(X)
    (tmp_path / "c" / "step-00000040.safetensors").unlink()
    np.testing.assert_array_equal(small(**options).fit(X, resume=True).components_, sae.components_)
    sae.save(tmp_path / "sae.safetensors")
    for again in (ProxSAE.load(tmp_path / "sae.safetensors"), pickle.loads(pickle.dumps(sae))):
        assert again.blocks_ == sae.blocks_
        np.testing.assert_array_equal(again.predict(X), sae.predict(X))
    small(n_steps=1, learning_rate=1e-9).fit(X * 2, init=sae)
    tuned = small(n_steps=1, learning_rate=1e-9).fit(X[:50], init=sae)  # rows of other scales
    np.testing.assert_allclose(tuned.predict(X), sae.predict(X), rtol=1e-3, atol=1e-2)
    again.partial_fit(X[:50])
    assert again.blocks_ == sae.blocks_
    sae.partial_fit(X)
    sae.save(tmp_path / "going.safetensors", training_state=True)
    on = ProxSAE.load(tmp_path / "going.safetensors").partial_fit(X)
    np.testing.assert_array_equal(on.components_, sae.partial_fit(X).components_)


def test_rows_of_a_stream_are_in_units_too(truth):
    X = truth[1].astype(np.float32)
    sae = small(n_steps=200).fit(ShuffledRows(X, buffer_rows=1024))
    assert sae.score(X) > 0.4
    assert sae.blocks_.scales[1] > 50 * sae.blocks_.scales[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [6, 9]}, r"blocks = \[6, 9\] make up 15 features, and X has 16"),
        ({"blocks": [0, 16]}, "must be a list of positive whole numbers"),
        ({"blocks": "16"}, "must be a list of positive whole numbers"),
        ({"blocks": []}, "must be a list of positive whole numbers"),
        ({"encoder": "solved"}, "knows atoms of one block alone"),
    ],
)
def test_what_does_not_fit_is_refused(truth, options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).fit(truth[1])


def test_other_blocks_need_a_new_fit(truth):
    sae = small().fit(truth[1])
    with pytest.raises(ValueError, match="needs a new fit: those of the fitted model have sizes"):
        sae.set_params(blocks=[10, 6]).partial_fit(truth[1])
    with pytest.raises(ValueError, match="needs another init: those of init have sizes"):
        small(blocks=None).fit(truth[1], init=sae)
    with pytest.raises(ValueError, match="have no scales"):
        FeatureBlocks((2, 3), (1.0,))
    with pytest.raises(ValueError, match="from_parts takes arrays in the units of the data, which those of a cross"):
        ProxSAE.from_parts(sae.components_, sae.intercept_, sae.encoder_, blocks=SIZES)
    for write in (lambda sae: save(sae, "nowhere", "saelens"), lambda sae: sae.as_saebench("gpt2", "blocks.6.hook")):
        with pytest.raises(ValueError, match="other libraries have no blocks"):
            write(sae)
    with pytest.raises(ValueError, match="a crosscoder has units of its own"):
        error_split(sae, truth[1], np.eye(16), np.eye(16))
