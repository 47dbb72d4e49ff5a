"""Nested data terms, a dictionary that stays, and what a training starts from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from proxsae import ProxSAE
from proxsae.encoders import Amortized, pre_activation
from proxsae.regularizers import Cardinality, NonNegative, parse
from proxsae.training import HierarchicalTopK, Matryoshka, Scaling, Trainer, TrainingState
from proxsae.training.autoencoder import initial_autoencoder, row_squared_norms
from proxsae.training.losses import AuxK, reconstruction


def small(R=None, **options):
    options = {"n_steps": 60, "batch_size": 64, "random_state": 0, **options}
    return ProxSAE(R if R is not None else Cardinality(3), 24, **options)


@pytest.fixture(scope="module")
def X():
    return (np.random.default_rng(0).normal(size=(300, 8)) + 1).astype(np.float32)


def forward_of(R, X):
    model = initial_autoencoder(Amortized(), parse(R), 24, 8, torch.Generator().manual_seed(0), torch.float64)
    with torch.no_grad():
        model.encoder.bias += 0.3
        model.bias += 0.5
    return model, model(torch.from_numpy(X).double())


def half_error(model, forward, Z):
    residual = forward.y - Z @ model.atoms - model.bias
    return 0.5 * residual.square().sum() / len(Z)


@pytest.mark.parametrize("R", ["Cardinality(5)", "0.3*L1", "NonNegative + Cardinality(4, 'batch')", "0.1*L0"])
def test_matryoshka_is_the_sum_over_prefixes(R, X):
    model, forward = forward_of(R, X)
    Z, weights = forward.encoding.codes.to_dense(), (0.5, 0.0, 2.0, 1.0)
    wanted = 0.0
    for size, weight in zip((3, 7, 8, 24), weights, strict=True):
        prefix = torch.where(torch.arange(24) < size, Z, 0.0)
        wanted = wanted + weight * half_error(model, forward, prefix)
    loss = Matryoshka((3, 7, 8, 24), weights)(forward)
    torch.testing.assert_close(loss, wanted)
    ours, theirs = (torch.autograd.grad(term, list(model.parameters()), retain_graph=True) for term in (loss, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(Matryoshka((24,))(forward), reconstruction(forward))


def test_hierarchical_topk_is_the_sum_over_k(X):
    model, forward = forward_of("Cardinality(6)", X)
    Z = forward.encoding.codes.to_dense()
    wanted = 0.0
    for k in (1, 2, 6):
        kept = torch.zeros_like(Z).scatter(1, Z.abs().topk(k, dim=1).indices, 1.0)
        wanted = wanted + half_error(model, forward, kept * Z) / 3
    loss = HierarchicalTopK((1, 2, 6))(forward)
    torch.testing.assert_close(loss, wanted)
    ours, theirs = (torch.autograd.grad(term, list(model.parameters()), retain_graph=True) for term in (loss, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def error_of_prefix(sae, X, size):
    Z = sae.transform(X).toarray()
    Z[:, size:] = 0
    return np.square(X - sae.inverse_transform(Z)).sum()


def test_the_first_atoms_learn_to_do_without_the_others(X):
    options = {"n_steps": 300, "learning_rate": 1e-2}
    plain, nested = small(**options).fit(X), small(loss=Matryoshka((8, 24)), **options).fit(X)
    assert error_of_prefix(nested, X, 8) < 0.7 * error_of_prefix(plain, X, 8)


def test_few_codes_learn_to_do_without_the_others(X):
    options = {"n_steps": 300, "learning_rate": 1e-2}
    plain = small(Cardinality(6), **options).fit(X)
    nested = small(Cardinality(6), loss=HierarchicalTopK((1, 2, 6)), **options).fit(X)

    def error(sae):
        Z = sae.transform(X).toarray()
        Z[np.abs(Z) < np.sort(np.abs(Z), axis=1)[:, -2:-1]] = 0
        return np.square(X - sae.inverse_transform(Z)).sum()

    assert error(nested) < 0.95 * error(plain)


def test_files_and_checkpoints_keep_the_loss(X, tmp_path):
    sae = small(loss=Matryoshka([8, 24], weights=[1.0, 2.0]), checkpoint_dir=tmp_path / "c", checkpoint_every=30)
    whole = sae.fit(X).components_
    (tmp_path / "c" / "step-00000060.safetensors").unlink()
    np.testing.assert_array_equal(sae.fit(X, resume=True).components_, whole)
    sae.save(tmp_path / "sae.safetensors")
    again = ProxSAE.load(tmp_path / "sae.safetensors")
    assert again.loss == Matryoshka((8, 24), (1.0, 2.0)) or again.loss == sae.loss
    with pytest.raises(ValueError, match="its loss"):
        sae.set_params(loss=None).fit(X, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss must be None, Matryoshka"),
        ({"loss": Matryoshka((8, 16))}, "must be n_components = 24"),
        ({"loss": HierarchicalTopK((8, 32))}, "needs more than n_components = 24"),
        ({"loss": Matryoshka((8, 24)), "encoder": "solved"}, "is a loss of gradients"),
        ({"update": "frozen", "encoder": "solved"}, "leaves nothing to learn"),
    ],
)
def test_what_does_not_fit_is_refused(X, options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).fit(X)


@pytest.mark.parametrize("sizes", [(), (0, 3), (3, 3), (1.5, 2), (True, 2)])
def test_sizes_are_ascending_whole_numbers(sizes):
    with pytest.raises(ValueError, match="must be"):
        Matryoshka(sizes)
    with pytest.raises(ValueError, match="one for each"):
        HierarchicalTopK((1, 2), weights=(1.0,))


def test_a_frozen_dictionary_stays_and_the_encoder_learns(X):
    atoms = np.random.default_rng(3).normal(size=(24, 8))
    sae = small(update="frozen", n_steps=200, learning_rate=1e-2).fit(X, init=atoms)
    unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    np.testing.assert_allclose(sae.components_, unit, atol=1e-7)
    assert sae.score(X) > small(update="frozen", n_steps=1, learning_rate=1e-9).fit(X, init=atoms).score(X) + 0.1
    kept = sae.components_.copy()
    np.testing.assert_allclose(sae.partial_fit(X).components_, kept, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"encoder": "solved"}, {"encoder": "unrolled"}])
def test_atoms_to_start_from(X, options):
    atoms = np.random.default_rng(3).normal(size=(24, 8))
    options |= {"n_steps": 1, "learning_rate": 1e-9} if options != {"encoder": "solved"} else {"n_steps": 1}
    unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    sae = small(**options).fit(X, init=torch.from_numpy(atoms))
    assert np.abs(np.sum(sae.components_ * unit, axis=1)).mean() > 0.9


def test_fine_tuning_starts_where_a_model_is(X):
    first = small(n_steps=300).fit(X)
    rate = {"n_steps": 1, "learning_rate": 1e-9}
    for again in (small(**rate).fit(X, init=first), first.set_params(**rate).fit(X, init=first)):
        np.testing.assert_allclose(again.components_, first.components_, atol=1e-5)
        np.testing.assert_allclose(again.transform(X).toarray(), first.transform(X).toarray(), atol=1e-3)
        assert again.n_iter_ == 1
    other = small(NonNegative() + Cardinality(5), **rate).fit(X, init=first)
    assert (np.diff(other.transform(X).indptr) <= 5).all()
    assert other.transform(X).data.min() > 0


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (np.ones((24, 7)), r"init must have shape \(24, 8\), got \(24, 7\)"),
        (np.zeros((24, 8)), "init has an atom of zeros, in row 0"),
        (np.full((24, 8), np.nan), "Input init contains NaN"),
        (ProxSAE(), "not fitted"),
    ],
)
def test_what_is_no_start(X, init, message):
    with pytest.raises(ValueError, match=message):
        small().fit(X, init=init)


@pytest.mark.parametrize("R", [Cardinality(4), NonNegative() + Cardinality(4)], ids=str)
def test_dead_atoms_are_the_same_in_a_room_of_fixed_size(R):
    generator = torch.Generator().manual_seed(0)
    model = initial_autoencoder(Amortized(), R, 64, 16, generator, torch.float32, False).train()
    model.unused_for[::5] = 1000
    forward, loss = model(torch.randn(50, 16, generator=generator)), AuxK(100, 8)
    expected = loss(forward)
    assert expected > 0
    for room in (13, 20, 64):
        torch.testing.assert_close(loss(replace(forward, room_for_dead=room)), expected)
    assert loss(replace(forward, room_for_dead=4)) != expected
    assert loss(replace(forward, room_for_dead=0)) == 0
    model.unused_for.zero_()  # all have come back since room was made
    assert loss(replace(forward, room_for_dead=20)) == loss(forward) == 0


@pytest.mark.parametrize("room", [None, 20])
def test_dead_atoms_look_at_some_of_the_samples(room):
    generator = torch.Generator().manual_seed(0)
    model = initial_autoencoder(Amortized(), Cardinality(4), 64, 16, generator, torch.float64, False).train()
    model.unused_for[::5] = 1000
    x, loss = torch.randn(50, 16, generator=generator, dtype=torch.float64), AuxK(100, 8)
    of_some = loss(replace(model(x), room_for_dead=room, every_for_dead=3))
    of_those = loss(replace(model(x[::3]), room_for_dead=room))
    torch.testing.assert_close(of_some, of_those)
    of_some.backward()
    gradient = model.atoms.grad.clone()
    model.zero_grad()
    of_those.backward()
    torch.testing.assert_close(gradient, model.atoms.grad)
    weight = torch.rand(50, generator=generator, dtype=torch.float64)
    weighted = loss(replace(model(x, weight=weight), every_for_dead=3))
    torch.testing.assert_close(weighted, loss(model(x[::3], weight=weight[::3])))


def test_squared_norms_have_the_gradient_of_their_definition():
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[2] = 0
    torch.testing.assert_close(row_squared_norms(rows), rows.square().sum(1))
    assert torch.autograd.gradcheck(row_squared_norms, rows.requires_grad_())


@pytest.mark.parametrize(
    ("n_samples", "weight", "every"), [(64, None, 1), (1100, None, 2), (4096, None, 4), (4096, torch.ones(4096), 1)]
)
def test_small_batches_and_samples_with_weights_are_all_looked_at(n_samples, weight, every):
    generator = torch.Generator().manual_seed(0)
    model = initial_autoencoder(Amortized(), Cardinality(2), 16, 4, generator, torch.float32, False)
    state = TrainingState.start(model, Scaling(torch.zeros(4), 1.0), Cardinality(2))
    seen = []
    trainer = Trainer(
        state, learning_rate=1e-3, losses=[reconstruction, lambda f: seen.append(f.every_for_dead) or 0.0]
    )
    trainer.step(torch.randn(n_samples, 4, generator=generator), weight=weight)
    assert seen == [every]


def test_dead_atoms_are_the_same_where_their_pre_activations_were_noted_block_by_block(monkeypatch):
    monkeypatch.setattr(pre_activation, "BLOCK_SIZE", 1)  # 256 rows at a time
    generator = torch.Generator().manual_seed(0)
    model = initial_autoencoder(Amortized(), Cardinality(4), 64, 16, generator, torch.float64, False).train()
    model.unused_for[::5] = 1000
    x, dead, loss = torch.randn(600, 16, generator=generator, dtype=torch.float64), torch.arange(0, 64, 5), AuxK(100, 8)
    for every in (1, 3, 5, 700):
        noted = replace(model(x, noting=pre_activation.Columns(dead, every)), every_for_dead=every)
        u, expected = noted.encoding.pre_activation, model.encoder.pre_activation(x)
        assert u.columns(dead, every) is u.noted.u
        torch.testing.assert_close(u.noted.u, expected[::every, dead])
        torch.testing.assert_close(u.columns(dead + 1, every), expected[::every, dead + 1])
        torch.testing.assert_close(u.columns(dead, 2), expected[::2, dead])
        torch.testing.assert_close(loss(noted), loss(replace(model(x), every_for_dead=every)))
