"""The trainer: what it learns, the constraints it keeps, the errors it raises."""

import copy

import numpy as np
import pytest
import torch

from proxsae import ProxSAE
from proxsae.data.order import BatchOrder
from proxsae.data.rows import Rows
from proxsae.encoders import Amortized, Solved, Unrolled
from proxsae.encoders.kinds import KINDS
from proxsae.regularizers import L0, L1, AsymmetricL0, Cardinality, NonNegative, SquaredL2
from proxsae.training import Scaling, Trainer, TrainingState, optimizer
from proxsae.training.autoencoder import Autoencoder, initial_autoencoder
from proxsae.training.batches import NormalisedBatches
from proxsae.training.losses import penalty, reconstruction
from proxsae.training.optimizer import adam, move
from proxsae.training.sparsity import check_steerable


def synthetic(n_samples=4000, n_features=24, n_atoms=32, k=3, seed=0):
    """Return samples that are sparse signed combinations of known unit atoms, and the atoms."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(n_atoms, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((n_samples, n_atoms))
    for row in codes:
        row[rng.choice(n_atoms, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(1, 2, k)
    return (codes @ atoms + 0.5).astype(np.float32), atoms


def initial_model(R, dtype=torch.float32, learn_thresholds=False):
    return initial_autoencoder(Amortized(), R, 40, 24, torch.Generator().manual_seed(0), dtype, learn_thresholds)


def small_trainer(R=None, **options):
    R = R or Cardinality(3)
    state = TrainingState.start(initial_model(R), Scaling(torch.zeros(24), 1.0), R)
    return Trainer(state, learning_rate=3e-3, **options)


def test_recovers_a_known_dictionary():
    X, atoms = synthetic()
    sae = ProxSAE(Cardinality(3), 48, n_steps=1200, batch_size=256, learning_rate=5e-3, random_state=0).fit(X)
    cosines = abs(atoms @ sae.components_.T).max(1)
    assert (cosines > 0.95).mean() >= 0.8
    assert sae.score(X) > 0.9


@pytest.mark.parametrize("R", [L1() + NonNegative(), L0() + NonNegative(), L1(), L0(), L1() + SquaredL2()])
def test_target_l0_is_met_within_five_per_cent(R):
    X, _ = synthetic()
    sae = ProxSAE(R, 48, target_l0=4, n_steps=400, batch_size=512, learning_rate=3e-3, random_state=0).fit(X)
    assert sae.transform(X).nnz / len(X) == pytest.approx(4, rel=0.05)


def test_target_l0_needs_a_weight_to_steer():
    for R in (Cardinality(3), 0.1 * L1() + Cardinality(3), NonNegative()):
        with pytest.raises(ValueError, match="target_l0 steers the weight of R"):
            check_steerable(R)


def test_a_target_that_no_weight_meets_is_refused():
    X, _ = synthetic(200)
    with pytest.raises(
        ValueError, match=r"no weight of .*Huber.* gives a mean L0 of 4: it stays between 48\.0 and 48\.0"
    ):
        ProxSAE("Huber(1.0)", 48, target_l0=4, n_steps=2).fit(X)


def test_atoms_keep_unit_norm_and_the_loss_falls():
    X, _ = synthetic()
    x = torch.from_numpy(X) - torch.from_numpy(X).mean(0)
    trainer = small_trainer()
    losses = [trainer.step(x[:1000])["loss"] for _ in range(200)]
    assert losses[-1] < 0.7 * losses[0]
    norms = trainer.model.atoms.detach().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(40), rtol=0, atol=1e-6)


def gradients_of_steps(trainer):
    """Return a list of dicts, each filled with the gradients that a step of the optimizer is to use, by name."""
    seen = []

    def note(*_):
        named = trainer.model.named_parameters()
        seen.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    trainer.state.optimizer.register_step_pre_hook(note)
    return seen


def test_the_radial_part_of_the_gradient_is_removed_before_the_step():
    trainer = small_trainer()
    seen = gradients_of_steps(trainer)
    before = trainer.model.atoms.detach().clone()
    trainer.step(torch.randn(64, 24, generator=torch.Generator().manual_seed(0)))
    (gradient,) = (gradients["atoms"] for gradients in seen if "atoms" in gradients)
    assert gradient.abs().max() > 1e-3
    assert (gradient * before).sum(1).abs().max() < 1e-6


ENCODERS = [Amortized(), *(Unrolled(3, kind) for kind in KINDS), Unrolled(3, "ista", isometry=0.1)]


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_a_step_within_the_backward_pass_is_the_step_after_it_with_one_gradient_at_a_time(encoder):
    R = 0.3 * L1() if "bregman" in str(encoder) else Cardinality(3)
    model = initial_autoencoder(encoder, R, 40, 24, torch.Generator().manual_seed(0), torch.float32, False)
    trainer = Trainer(TrainingState.start(model, Scaling(torch.zeros(24), 1.0), R), learning_rate=3e-3, dead_after=64)
    seen, twin = gradients_of_steps(trainer), copy.deepcopy(trainer.state)
    for seed in range(4):
        x = torch.randn(64, 24, generator=torch.Generator().manual_seed(seed))
        rate = trainer.step(x)["learning_rate"]
        forward = twin.model(x)
        sum(loss(forward) for loss in trainer.losses).backward()
        move(twin.optimizer, twin.model.atoms, rate, twin.model.blocks)
        twin.model.unused_for.copy_(model.unused_for)
        for one, other in zip(model.parameters(), twin.model.parameters(), strict=True):
            assert torch.equal(one, other)
    assert {len(gradients) for gradients in seen} == {1}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_loss_is_the_objective():
    trainer = small_trainer(0.3 * L1() + NonNegative())
    x = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
    model = trainer.model
    with torch.no_grad():
        Z = model.encoder(x)
        objective = 0.5 * (x - Z @ model.atoms - model.bias).square().sum(1) + model.encoder.regularizer.value(Z)
    assert float(trainer.step(x)["loss"]) == pytest.approx(float(objective.mean()), rel=1e-5)


def test_dead_atoms_get_a_gradient_from_the_residual_and_come_back():
    trainer = small_trainer(dead_after=256)
    generator = torch.Generator().manual_seed(0)
    encoder = trainer.model.encoder
    with torch.no_grad():
        encoder.weight[:10] *= 1e-3  # never among the largest
    for _ in range(4):
        trainer.step(torch.randn(64, 24, generator=generator))
    assert trainer.dead[:10].all()
    before, seen = encoder.weight[:10].detach().clone(), gradients_of_steps(trainer)
    trainer.step(torch.randn(64, 24, generator=generator))
    (gradient,) = (gradients["encoder.weight"] for gradients in seen if "encoder.weight" in gradients)
    assert gradient[:10].abs().sum(1).min() > 0
    assert not torch.equal(encoder.weight[:10].detach(), before)
    for _ in range(400):
        trainer.step(torch.randn(64, 24, generator=generator))
    assert trainer.dead[:10].float().mean() < 0.5

    without = small_trainer(dead_after=256, losses=[reconstruction, penalty])
    with torch.no_grad():
        without.model.encoder.weight[:10] *= 1e-3
    seen = gradients_of_steps(without)
    for _ in range(5):
        without.step(torch.randn(64, 24, generator=generator))
    of_weight = [gradients["encoder.weight"] for gradients in seen if "encoder.weight" in gradients]
    assert len(of_weight) == 5
    assert of_weight[-1][:10].abs().max() == 0


def test_negative_codes_are_activity():
    trainer = small_trainer()
    with torch.no_grad():
        trainer.model.encoder.bias[0] = -100.0  # always chosen, always negative
    for _ in range(3):
        trainer.step(torch.randn(64, 24, generator=torch.Generator().manual_seed(0)))
    assert trainer.model.unused_for[0] == 0


class Normal:
    """Standard normal batches."""

    batch_size = 64

    def after(self, n_drawn):
        x = torch.randn(64, 24, generator=torch.Generator().manual_seed(n_drawn))
        return x, x


def test_a_loss_that_is_not_finite_names_the_step():
    trainer = small_trainer()
    trainer.advance(Normal())
    with torch.no_grad():
        trainer.model.atoms.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="at step 2"):
        trainer.advance(Normal())


def reconstructed(model, x):
    return x - model(x).residual


@pytest.mark.parametrize("R", [Cardinality(3), 0.2 * L1() + NonNegative(), 0.3 * L0(), 0.1 * L1() + Cardinality(3)])
def test_units_change_back_and_forth(R):
    mean, scale = torch.linspace(-2, 5, 24, dtype=torch.float64), 7.0
    model = initial_model(R, torch.float64)
    with torch.no_grad():
        model.encoder.bias.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(1))
        model.bias.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(2))
    x = torch.randn(30, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scaling = Scaling(mean, scale)
    raw = model.in_units(scaling, scaling)
    data = scale * x + mean
    torch.testing.assert_close(reconstructed(raw, data), scale * reconstructed(model, x) + mean)
    torch.testing.assert_close(raw.encoder(data), scale * model.encoder(x))
    objective = [
        0.5 * (v - reconstructed(m, v)).square().sum(1) + m.encoder.regularizer.value(m.encoder(v))
        for m, v in ((model, x), (raw, data))
    ]
    torch.testing.assert_close(objective[1], scale**2 * objective[0])
    back = raw.in_units(scaling.inverse, scaling.inverse)
    torch.testing.assert_close(reconstructed(back, x), reconstructed(model, x))


def test_inputs_and_targets_may_have_scalings_of_their_own():
    model = initial_model(0.2 * L1(), torch.float64)
    with torch.no_grad():
        model.encoder.bias.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(1))
    inputs = Scaling(torch.linspace(-2, 5, 24, dtype=torch.float64), 7.0)
    targets = Scaling(torch.linspace(1, 2, 24, dtype=torch.float64), 0.3)
    x = torch.randn(30, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    raw = model.in_units(inputs, targets)
    expected = targets.scale * reconstructed(model, x) + targets.mean
    torch.testing.assert_close(reconstructed(raw, inputs.scale * x + inputs.mean), expected)


def test_batches_cover_every_epoch_and_depend_on_the_seed_alone():
    order = BatchOrder(10, 4, seed=1)
    batches = [order.after(n) for n in range(0, 20, 4)]
    assert sorted(np.concatenate(batches)) == sorted([*range(10), *range(10)])
    np.testing.assert_array_equal(BatchOrder(10, 4, seed=1).after(8), batches[2])
    assert BatchOrder(3, 100, seed=0).after(0).tolist() == [0, 1, 2]


def test_reading_rows_names_the_first_bad_one():
    X = np.zeros((20, 3), np.float32)
    X[13, 1] = np.nan
    for rows in (np.array([2, 13, 15]), slice(10, 20)):
        with pytest.raises(ValueError, match="row 13 of 20"):
            Rows(X).read(rows, torch.float32, torch.device("cpu"))


def scaling_of(X, dtype=torch.float32):
    return Scaling.of(Rows(X), dtype, torch.device("cpu"))


def test_the_scaling_is_that_of_the_data():
    X = np.random.default_rng(0).normal(3, 2, size=(20_000, 6)).astype(np.float32)
    scaling = scaling_of(X)
    np.testing.assert_allclose(scaling.mean.numpy(), X.mean(0, dtype=np.float64), rtol=1e-5)
    assert scaling.scale == pytest.approx(np.linalg.norm(X - X.mean(0), axis=1).mean() / 6**0.5, rel=1e-5)


@pytest.mark.parametrize("power", [-25, -20, 20, 25])
def test_the_scale_neither_overflows_nor_underflows(power):
    X = np.random.default_rng(0).normal(3, 2, size=(1000, 6)).astype(np.float32)
    assert scaling_of(X * np.float32(10.0**power)).scale == pytest.approx(scaling_of(X).scale * 10.0**power, rel=1e-5)


def test_a_scale_beyond_the_dtype_is_one_sentence():
    X = np.random.default_rng(0).normal(size=(100, 6))
    for factor in (1e-305, 1e305):
        with pytest.raises(ValueError, match=r"can be rescaled from .* multiply X by a constant"):
            scaling_of(X * factor, torch.float64)
    assert scaling_of(np.full((100, 6), 1e-305), torch.float64).scale == 1.0


@pytest.mark.parametrize(
    ("R", "target", "n_steps"),
    [(Cardinality(3), None, 12), (Cardinality(3, "batch"), None, None), (L0() + NonNegative(), 4, 12), (L1(), 4, 12)],
)
def test_killed_and_resumed_equals_never_stopped(R, target, n_steps):
    X, _ = synthetic(300)

    def started():
        model = initial_model(R, learn_thresholds=target is not None)
        return TrainingState.start(model, scaling_of(X), R, seed=5, n_steps=n_steps, target_l0=target)

    def run(state, steps):
        trainer = Trainer(state, learning_rate=3e-3, dead_after=100)
        batches = NormalisedBatches(Rows(X), 64, state)
        for _ in range(steps):
            trainer.advance(batches)
        return trainer.history.arrays()

    through = started()
    whole = run(through, 12)
    for killed_after in (1, 7):
        killed = started()
        run(killed, killed_after)
        resumed = TrainingState.from_state_dict(copy.deepcopy(killed.state_dict()))
        rest = run(resumed, 12 - killed_after)
        for name in set(whole) - {"step"}:
            np.testing.assert_array_equal(rest[name], whole[name][killed_after:], err_msg=name)
        ours, theirs = resumed.state_dict(), through.state_dict()
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
            assert same, name


@pytest.mark.parametrize("encoder", ["amortized", "unrolled", Solved()], ids=str)
@pytest.mark.parametrize("value", [0.1, 0.3, 1.0])
def test_equal_rows_have_nothing_to_explain(encoder, value):
    """Rounding of their mean is no spread that could be learned."""
    X = np.full((60, 6), value)
    sae = ProxSAE("0.1*L1", 12, encoder=encoder, update="gradient", n_steps=30, random_state=0).fit(X)
    assert sae.score(X) == 1
    assert sae.transform(X).nnz == 0


@pytest.mark.parametrize("options", [{}, {"encoder": "unrolled"}, {"encoder": "solved"}])
def test_codes_that_are_all_zero_are_said_to_be(options):
    X = np.random.default_rng(0).normal(size=(200, 6))
    with pytest.warns(UserWarning, match=r"every code of the last step is zero under 1000000.0\*L1\(\): take"):
        ProxSAE("1e6*L1", 12, n_steps=5, random_state=0, **options).fit(X)


def test_one_pass_moves_matrices_and_no_thresholds_or_biases(monkeypatch):
    atoms = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    model = Autoencoder(Amortized().initial(AsymmetricL0(0.1, 0.2), atoms, learn_thresholds=True), atoms, atoms[0])
    moved = []
    monkeypatch.setattr(optimizer, "on_cuda", lambda _: True)
    monkeypatch.setattr(optimizer, "_move_matrix", lambda _, matrix, *rest, **options: moved.append(matrix))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert model.encoder.threshold.shape == (2, 6)  # a matrix of two rows as long as there are atoms
    move(adam(model), model.atoms, 0.01, model.blocks)
    assert {id(matrix) for matrix in moved} == {id(model.atoms), id(model.encoder.weight)}


def test_a_step_begins_without_what_a_failed_recording_left():
    ours, theirs = small_trainer(), small_trainer()
    for parameter in ours.model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    x = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
    for trainer in (ours, theirs):
        trainer.step(x)
    assert all(torch.equal(*pair) for pair in zip(ours.model.parameters(), theirs.model.parameters(), strict=True))


@pytest.mark.parametrize("encoder", [Amortized(), Unrolled(3, "lista-cp")], ids=repr)
def test_parameters_lie_row_after_row_whatever_they_are_made_of(encoder):
    """Kernels change them in place."""
    atoms = torch.nn.functional.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).T)
    assert not atoms.is_contiguous()
    model = Autoencoder(encoder.initial(Cardinality(2), atoms, learn_thresholds=False), atoms, torch.zeros(4))
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    torch.testing.assert_close(model.atoms.detach(), atoms)
    A = atoms.numpy()
    again = ProxSAE.from_parts(A, np.zeros(4), Amortized.of(Cardinality(2), atoms, torch.zeros(6)))
    assert again.encoder_.weight.is_contiguous()
    assert again.components_.flags.c_contiguous
    X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    fitted = ProxSAE("Cardinality(2)", 6, n_steps=2, random_state=0).fit(X, init=A)
    assert fitted.components_.flags.c_contiguous


@pytest.mark.parametrize("encoder", [Amortized(), Unrolled(3, "lista-cp")], ids=repr)
def test_adam_forgets_gradients_of_matrices_sooner_than_those_of_thresholds(encoder):
    atoms = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    started = encoder.initial(AsymmetricL0(0.1, 0.2), atoms, learn_thresholds=True)
    model = Autoencoder(started, atoms, torch.zeros(4))
    names = {parameter: name for name, parameter in model.named_parameters()}
    factor = {names[p]: group["betas"] for group in adam(model).param_groups for p in group["params"]}
    assert set(factor) == set(names.values())
    assert factor["atoms"] == (0.9, 0.95)
    assert factor["bias"] == factor["encoder.threshold"] == (0.9, 0.999)  # though there are two thresholds an atom
    weight = "encoder.weight" if "encoder.weight" in factor else "encoder.layers.weight"
    assert factor[weight] == (0.9, 0.95)
    pace = {names[p]: group["pace"] for group in adam(model).param_groups for p in group["params"]}
    faster = {"encoder.bias": 2.0} if isinstance(encoder, Amortized) else {}  # the root of 4 features
    assert pace == dict.fromkeys(names.values(), 1.0) | faster
    model.use(encoder.initial(Cardinality(2), atoms, learn_thresholds=False))
    assert {group["pace"] for group in adam(model).param_groups} == {1.0}
