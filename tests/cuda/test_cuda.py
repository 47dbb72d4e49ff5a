"""Every public path on a CUDA device, against the same path on the CPU."""

import pickle
import warnings

import numpy as np
import pytest
import small_saes
import torch
from llm_models import tiny_model, tiny_texts
from zoo import JOINT, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae import ProxSAE, solve
from proxsae.data.rows import Rows
from proxsae.encoders import Amortized, Solved, Unrolled
from proxsae.encoders.pre_activation import in_bfloat16
from proxsae.formulas.arrays import name_of_dtype
from proxsae.kernels.replay import Replay
from proxsae.llm import steered
from proxsae.llm.concepts import Axis
from proxsae.llm.steer_bench import steer_bench
from proxsae.llm.steer_bench.axis_contexts import read_sides
from proxsae.regularizers import L0, L1, Box, Cardinality, NonNegative, Numeric, SquaredL2

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

N_FEATURES, N_ATOMS = 16, 64

# R, and how it gets its sparsity
KINDS = {
    "relu": (0.3 * L1() + NonNegative(), {}),
    "relu at a target": (L1() + NonNegative(), {"target_l0": 4}),
    "jumprelu": (0.2 * L0() + NonNegative(), {}),
    "jumprelu with learned thresholds": (L0() + NonNegative(), {"target_l0": 4}),
    "hard threshold with learned thresholds": (L0(), {"target_l0": 4}),
    "topk": (NonNegative() + Cardinality(4), {}),
    "abstopk": (Cardinality(4), {}),
    "soft topk": (0.1 * L1() + Cardinality(4), {}),
    "batchtopk": (NonNegative() + Cardinality(4, "batch"), {}),
    "weights one an atom": (np.linspace(0.1, 0.6, N_ATOMS) * L1(), {}),
    "weights one an atom, topk": (np.linspace(0.1, 0.6, N_ATOMS) * L1() + Cardinality(4), {}),
    "groups": ("0.3*GroupL2(4)", {}),
    "simplex": ("Simplex(2.0)", {}),
}


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(40, N_FEATURES))
    codes = rng.normal(size=(600, 40)) * (rng.uniform(size=(600, 40)) < 0.1)
    return (codes @ atoms + 1).astype(np.float32)


def sae_of(kind, device, **options):
    R, sparsity = KINDS[kind]
    given = {"n_steps": 60, "batch_size": 128, "random_state": 0, "device": device, **sparsity}
    given |= {"encoder": Amortized(precision="float32"), **options}
    return ProxSAE(R, N_ATOMS, **given)


def quietly(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # solvers that stop before they have converged
        return function(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("R", [*SEPARABLE, *TRANSCENDENTAL, *SUMS, *JOINT], ids=repr)
def test_prox_and_value(R, dtype):
    generator = torch.Generator().manual_seed(0)
    U = (2 * torch.randn(7, 5, generator=generator, dtype=torch.float64)).to(dtype)
    for step in (1.0, 0.3):
        ours = R.prox(U.cuda(), step)
        assert (ours.device.type, ours.dtype) == ("cuda", dtype)
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 1e-2)
        torch.testing.assert_close(ours.cpu(), R.prox(U, step), rtol=tolerance, atol=tolerance)
        Z = ours.float() if dtype.itemsize == 2 else ours
        torch.testing.assert_close(R.value(Z).cpu(), R.value(Z.cpu()), rtol=1e-4, atol=1e-4)
    offsets, indices = R.support_rule(5, name_of_dtype(dtype))(U.cuda())
    assert offsets.device.type == indices.device.type == "cuda"


WEIGHTS = np.linspace(0.2, 0.4, N_ATOMS)


SOLVED = [0.3 * L1() + NonNegative(), WEIGHTS * L1(), 0.2 * L0(), Cardinality(3), WEIGHTS * L1() + Cardinality(3)]
SOLVED += ["0.3*GroupL2(4)", ["0.1*L1", "0.3*GroupL2(4)"]]


@pytest.mark.parametrize("R", SOLVED, ids=lambda R: str(R)[:40])
def test_solve(R, X):
    """What is not convex has the same minimum on both devices, since it is found by the same method."""
    D = np.random.default_rng(1).normal(size=(N_ATOMS, N_FEATURES))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    data = X[:50].astype(np.float64)
    tensors = [torch.from_numpy(a).cuda() for a in (data, D)]
    there, here = quietly(solve, *tensors, R), quietly(solve, data, D, R)
    assert there.codes.device.type == there.objective.device.type == there.converged.device.type == "cuda"
    assert (there.method, there.certificate_kind) == (here.method, here.certificate_kind)
    np.testing.assert_allclose(there.objective.cpu().numpy(), here.objective, rtol=1e-4)
    if not isinstance(R, list | str):
        again = quietly(solve, *tensors, R.map_parameters(lambda _, a: torch.as_tensor(a).cuda() if np.ndim(a) else a))
        np.testing.assert_allclose(again.objective.cpu().numpy(), here.objective, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("R", [0.1 * L1(), 0.1 * L1() + SquaredL2(), 0.1 * L1() + Box(-0.2, 0.3)], ids=repr)
def test_active_sets_are_solved_on_the_device(R, dtype, X):
    D = np.random.default_rng(1).normal(size=(N_ATOMS, N_FEATURES)).astype(dtype)
    data, tol = X[:100].astype(dtype), 1e-6 if dtype is np.float64 else 1e-4
    there = solve(torch.from_numpy(data).cuda(), torch.from_numpy(D).cuda(), R, tol=tol)
    here = solve(data, D, R, tol=tol)
    assert there.method == "active_set"
    assert bool(there.converged.all())
    bound = there.certificate.cpu().numpy() + here.certificate + 0.01 * tol * (data**2).sum(1)
    assert (abs(there.objective.cpu().numpy() - here.objective) <= bound).all()


@pytest.mark.parametrize("method", ["auto", "omp", "htp", "exact"])
def test_codes_of_compiled_methods_come_back(method, X):
    D = np.random.default_rng(1).normal(size=(N_ATOMS, N_FEATURES)).astype(np.float32)
    there = solve(torch.from_numpy(X[:50]).cuda(), torch.from_numpy(D).cuda(), Cardinality(3), method=method)
    assert (there.codes.device.type, there.codes.dtype) == ("cuda", torch.float32)
    np.testing.assert_array_equal(there.codes.cpu().numpy(), solve(X[:50], D, Cardinality(3), method=method).codes)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_a_model_does(kind, X, tmp_path):
    there, here = sae_of(kind, "cuda").fit(X), sae_of(kind, "cpu").fit(X)
    assert there.encoder_.device.type == "cuda"
    assert isinstance(there.components_, np.ndarray)
    # Sums round differently, and selections then part ways: the losses stay together.
    np.testing.assert_allclose(there.history_["loss"][:5], here.history_["loss"][:5], rtol=1e-2)
    np.testing.assert_allclose(there.history_["loss"][-5:].mean(), here.history_["loss"][-5:].mean(), rtol=0.1)
    assert there.score(X) == pytest.approx(here.score(X), abs=0.05)

    # The same model gives the same codes on both devices.
    there.save(tmp_path / "sae.safetensors")
    moved = ProxSAE.load(tmp_path / "sae.safetensors").set_params(device="cpu")
    Z, W = there.transform(X).toarray(), moved.transform(X).toarray()
    assert (abs(Z - W) > 1e-3).sum() <= 1e-3 * Z.size
    np.testing.assert_allclose(there.inverse_transform(Z), moved.inverse_transform(Z), rtol=1e-5, atol=1e-5)
    assert there.score(X) == pytest.approx(moved.score(X), abs=1e-3)
    gap = quietly(there.amortization_gap, X[:100])
    np.testing.assert_allclose(gap, quietly(moved.amortization_gap, X[:100]), rtol=0.05, atol=0.05)
    assert gap.shape == (100,)
    assert gap.min() > -1e-2

    # Tensors on the device, half precision, and further training.
    there.transform(torch.from_numpy(X).cuda())
    assert there.score(torch.from_numpy(X).cuda().bfloat16()) == pytest.approx(there.score(X), abs=0.05)
    quietly(there.amortization_gap, torch.from_numpy(X[:20]).cuda().half())
    there.partial_fit(torch.from_numpy(X).cuda())
    assert there.score(X) > here.score(X) - 0.2
    again = pickle.loads(pickle.dumps(there))
    assert all(p.device.type == "cpu" for p in again.encoder_.parameters())
    assert np.isfinite(again.score(X))


@pytest.mark.parametrize("kind", ["topk", "abstopk", "batchtopk", "relu", "jumprelu with learned thresholds"])
def test_bfloat16_products_train_as_well(kind, X):
    exact = sae_of(kind, "cuda", n_steps=300).fit(X)
    low = sae_of(kind, "cuda", n_steps=300, encoder=Amortized(precision="bfloat16")).fit(X)
    assert not np.array_equal(low.history_["loss"], exact.history_["loss"])
    assert low.history_["loss"][-50:].mean() == pytest.approx(exact.history_["loss"][-50:].mean(), rel=0.01)


ENCODERS = [Solved(), *(Unrolled(3, kind) for kind in ("ista", "lista", "lista-cp", "alista", "bregman"))]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: getattr(e, "kind", e.name))
@pytest.mark.parametrize("kind", ["abstopk", "relu", "jumprelu with learned thresholds"])
def test_every_encoder(encoder, kind, X):
    there, here = (quietly(sae_of(kind, device, encoder=encoder, n_steps=20).fit, X) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there.history_["loss"][:5], here.history_["loss"][:5], rtol=1e-2)
    assert there.score(X) == pytest.approx(here.score(X), abs=0.1)
    assert np.isfinite(quietly(there.refine, X[:50]).after).all()


@pytest.mark.parametrize("kind", ["relu at a target", "jumprelu with learned thresholds"])
def test_calibrate(kind, X):
    sae = sae_of(kind, "cuda").fit(X)
    other = torch.from_numpy(1.5 * X).cuda()
    assert sae.calibrate(other).transform(other).nnz / len(X) == pytest.approx(4, rel=0.03)
    assert np.isfinite(np.asarray(sae.regularizer_.terms[0].weight)).all()


@pytest.mark.parametrize("kind", ["abstopk", "batchtopk", "jumprelu with learned thresholds"])
def test_resuming_equals_never_having_stopped(kind, X, tmp_path):
    through = sae_of(kind, "cuda").partial_fit(X).partial_fit(X)
    sae_of(kind, "cuda").partial_fit(X).save(tmp_path / "sae.safetensors", training_state=True)
    resumed = ProxSAE.load(tmp_path / "sae.safetensors").partial_fit(X)
    # Atomic additions on a device come in any order, so that equality is to rounding.
    np.testing.assert_allclose(resumed.history_["loss"], through.history_["loss"], rtol=1e-3)


def test_dead_atoms_come_back(X):
    sae = sae_of("topk", "cuda", dead_after=256, n_steps=200).fit(X)
    assert np.isfinite(sae.history_["loss"]).all()
    assert 0 < sae.history_["dead"].max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_models_of_parts_and_other_precisions(dtype, X):
    D = np.random.default_rng(0).normal(size=(N_ATOMS, N_FEATURES)).astype(dtype)
    W, b_e = torch.from_numpy(D).cuda(), torch.zeros(N_ATOMS, dtype=torch.from_numpy(D).dtype).cuda()
    sae = ProxSAE.from_parts(D, np.zeros(N_FEATURES), Amortized.of(Cardinality(4), W, b_e), device="cuda")
    assert (np.diff(sae.transform(X).indptr) == 4).all()
    assert sae.transform(X.astype(np.float64)).dtype == np.float64


def test_a_function_of_the_user(X):
    sae = ProxSAE(0.3 * Numeric(abs) + NonNegative(), N_ATOMS, n_steps=3, random_state=0, device="cuda").fit(X)
    assert np.isfinite(sae.score(X))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dead_after", [128, 100_000])
@pytest.mark.parametrize("kind", ["topk", "abstopk", "soft topk"])
def test_a_replayed_step_is_the_step(kind, dead_after, precision, X, monkeypatch):
    options = {"dead_after": dead_after, "n_steps": 130, "encoder": Amortized(precision=precision)}
    recorded = []
    record = Replay._record
    monkeypatch.setattr(Replay, "_record", lambda self, *given: recorded.append(1) or record(self, *given))
    replayed = sae_of(kind, "cuda", **options).fit(X)
    assert recorded
    monkeypatch.setattr(Replay, "__call__", lambda self, function, *given: function(*given))
    called = sae_of(kind, "cuda", **options).fit(X)
    np.testing.assert_allclose(replayed.history_["loss"][:10], called.history_["loss"][:10], rtol=1e-3)
    np.testing.assert_allclose(replayed.history_["learning_rate"], called.history_["learning_rate"])
    # Atomic additions come in any order, and selections then part ways.
    assert replayed.history_["loss"][-20:].mean() == pytest.approx(called.history_["loss"][-20:].mean(), rel=0.1)
    assert replayed.score(X) == pytest.approx(called.score(X), abs=0.05)


@pytest.mark.parametrize("kind", ["relu", "batchtopk", "jumprelu with learned thresholds"])
def test_a_step_that_waits_is_not_replayed(kind, X, monkeypatch):
    monkeypatch.setattr(Replay, "_record", None)
    assert np.isfinite(sae_of(kind, "cuda").fit(X).score(X))


def test_rows_are_moved_once(X):
    rows = Rows(X, is_finite=True).taken(np.arange(0, 600, 2))
    moved = rows.moved(torch.float32, torch.device("cuda"))
    assert moved.source.device.type == "cuda"
    assert torch.equal(
        moved.read(np.array([0, 5]), torch.float32, torch.device("cuda")).cpu(), torch.from_numpy(X[[0, 10]])
    )


def test_a_step_of_topk_reads_the_loss_seldom(X):
    # The trainer's own part of a step waits for the device only to read records.
    from proxsae.training.history import READ_EVERY, History

    history = History()
    records = {name: torch.ones((), device="cuda") for name in ("loss", "fvu", "l0", "dead")}
    for _ in range(READ_EVERY - 1):
        history.add({**records, "learning_rate": 0.1})
    assert not history.last()
    history.add({**records, "learning_rate": 0.1})
    assert history.last()["loss"] == 1.0
    assert len(history.arrays()["loss"]) == READ_EVERY


def test_a_steering_is_that_of_the_cpu(monkeypatch):
    monkeypatch.setattr("proxsae.llm.steer_bench.run.SEPARATED", 0.0)
    texts, sae = tiny_texts(400), small_saes.sae_of("Cardinality(8)", d=16, p=64)
    axis = Axis("one", "more", "less", tuple(zip(texts[:8], texts[8:16], strict=True)), (" w10",), (" w11", " w12"))
    options = {"axes": [axis], "text": texts, "neutral_tokens": 128, "strengths": [0.5], "block": 2, "verbose": False}
    found = []
    for device in ("cuda", "cpu"):
        model = tiny_model()
        model.model.to(device)
        sides = read_sides(model, model.site(2), axis, float("inf"))
        rows = steer_bench(model, {"AbsTopK": [sae]}, **options)["rows"]
        with steered(model, sae, {3: 5.0}, block=2):
            logits = model.logits(torch.tensor([[0, 5, 6, 7]])).cpu().numpy()
        found.append((sides.odds, sides.slopes, [[row["kl"], *row["shifts"]] for row in rows], logits))
    for there, here in zip(*found, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_bias_keeps_its_bits_in_a_product_of_bfloat16(size):
    generator = torch.Generator("cuda").manual_seed(0)
    x, W = (torch.randn(n, 21, generator=generator, device="cuda") for n in (50, 70))
    b = size * torch.randn(70, generator=generator, device="cuda")
    expected = (x.bfloat16().double() @ W.bfloat16().double().T + b).float()
    torch.testing.assert_close(in_bfloat16(x, W, b), expected, rtol=1e-6, atol=1e-6 * max(size, 10))
