"""The steering benchmark against single steered runs, its choices, and its summary."""

import csv
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from llm_models import one_thread, tiny_model, tiny_texts  # noqa: F401
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix
from small_saes import sae_of
from torch.utils._pytree import tree_leaves

from proxsae.cli import main
from proxsae.commands.steer_bench import _done, _paths, _write
from proxsae.llm import steered
from proxsae.llm.concepts import Axis
from proxsae.llm.generate import prompt_ids
from proxsae.llm.steer_bench import at_damage, differences, steer_bench, summarise
from proxsae.llm.steer_bench.axis_contexts import read_neutral, read_sides
from proxsae.llm.steer_bench.choice import mean_difference, one_atom, pair_of_atoms

TARGETS = ((" w10",), (" w11", " w12"))
OPTIONS = {"text": tiny_texts(400), "neutral_tokens": 128, "verbose": False, "check_provenance": False}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def odds(model, context):
    log_p = model.logits(torch.tensor([prompt_ids(model, context)]))[0, -1].double().log_softmax(-1)
    a, b = ([3 + int(word[2:]) for word in words] for words in TARGETS)
    return float(log_p[a].logsumexp(0) - log_p[b].logsumexp(0))


def an_axis(model, name="one", n=12, tells_apart=True):
    """Random contexts of several lengths, the one of larger odds on side a."""
    random = np.random.default_rng(0)
    pairs = []
    for i in range(n):
        texts = [" ".join(f"w{word}" for word in random.integers(60, size=random.integers(3, 7))) for _ in range(2)]
        texts.sort(key=lambda text: odds(model, text), reverse=tells_apart or bool(i % 2))
        pairs.append(tuple(texts))
    return Axis(name, "more", "less", tuple(pairs), *TARGETS)


def tiny_sae(R="Cardinality(8)", seed=0):
    sae = sae_of(R, d=16, p=64, seed=seed)
    sae.provenance_ = {"site": "block.2"}
    return sae


@pytest.fixture(scope="module")
def results(model):
    saes = {"AbsTopK": [tiny_sae(), tiny_sae(seed=1)], "TopK": [tiny_sae("NonNegative + Cardinality(8)")]}
    axes = [an_axis(model), an_axis(model, "mixed", tells_apart=False)]
    return saes, axes, steer_bench(model, saes, axes=axes, **OPTIONS)


def test_rows_do_not_depend_on_the_container_of_codes(model, results):
    saes, axes, found = results
    dense = [tiny_sae().set_params(sparse_output=False).set_output(transform="pandas"), saes["AbsTopK"][1]]
    rows = steer_bench(model, {**saes, "AbsTopK": dense}, axes=axes[:1], **OPTIONS)["rows"]
    assert rows == found["rows"]


def test_an_axis_that_the_model_does_not_know_is_left_out(results):
    _, _, found = results
    assert [(axis["axis"], axis["kept"]) for axis in found["axes"]] == [("one", True), ("mixed", False)]
    assert found["axes"][0]["separated"] == 1.0
    assert found["axes"][1]["separated"] == 0.5
    assert {row["axis"] for row in found["rows"]} == {"one"}


def test_a_row_is_what_single_steered_runs_give(model, results):
    saes, (axis, _), found = results
    neutral = read_neutral(model, model.site(2), OPTIONS["text"], 128)
    rows = [row for row in found["rows"] if row["atom"] is not None]
    assert {row["variant"] for row in rows} == {"one atom", "pair", "random atom"}
    checked = 0
    for row in rows[:: max(1, len(rows) // 12)]:
        sae = saes[row["method"]][row["seed"]]
        value = row["strength"] * found["median_norm"] / np.linalg.norm(sae.components_[row["atom"]])
        there = [pair[1 if row["direction"] == "a" else 0] for pair in axis.templates]
        clean = np.array([odds(model, context) for context in there])
        towards = 1 if row["direction"] == "a" else -1
        fits = []
        for sign in (1, -1):
            with steered(model, sae, {row["atom"]: sign * value}):
                shifts = towards * (np.array([odds(model, context) for context in there]) - clean)
                logits = model.logits(neutral.passage.tokens)[:, :-1].double().log_softmax(-1)
            kl = (neutral.log_p.double().exp() * (neutral.log_p.double() - logits)).sum(-1)[neutral.is_target].mean()
            same_kl = float(kl) == pytest.approx(row["kl"], rel=1e-3, abs=1e-5)
            each = [min(abs(shift - other) for other in shifts) < 1e-3 for shift in row["shifts"]]
            fits.append(same_kl and all(each))
        assert any(fits), row
        checked += 1
    assert checked >= 10
    assert len(rows[0]["shifts"]) == 6  # the half of the templates that did not choose


class OnDevice(torch.Tensor):
    """A tensor that gives no array and meets no tensor of main memory but an index, as if on a device."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        others = [x for x in tree_leaves((args, kwargs)) if type(x) is torch.Tensor and x.ndim]
        if function is torch.Tensor.numpy or (others and function is not torch.Tensor.__getitem__):
            raise TypeError("the tensor is on a device")
        found = super().__torch_function__(function, types, args, kwargs)
        return found.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else found


def test_a_model_on_a_device_gives_the_same_rows(model, monkeypatch):
    options = {"axes": [an_axis(model, n=4)], "strengths": [0.5], **OPTIONS}
    here = steer_bench(model, {"AbsTopK": [tiny_sae()]}, **options)
    for name in ("read", "logits"):
        method = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *given, method=method: method(*given).as_subclass(OnDevice))
    assert steer_bench(model, {"AbsTopK": [tiny_sae()]}, **options) == here


def test_a_signed_atom_is_pushed_both_ways_and_a_path_ends_where_it_is_to(results):
    _, _, found = results
    by_path = {}
    for row in found["rows"]:
        key = tuple(row[name] for name in ("method", "variant", "seed", "direction"))
        by_path.setdefault(key, []).append(row)
    methods = {key[:2] for key in by_path}
    assert methods == {
        ("difference of means", "direction"),
        ("random direction", "direction"),
        *product(("AbsTopK", "TopK"), ("one atom", "pair", "random atom")),
    }
    for key, path in by_path.items():
        assert [row["strength"] for row in path] == sorted(row["strength"] for row in path)
        assert all(row["kl"] <= 0.3 for row in path[:-1])
        if key[1] == "one atom":
            assert path[0]["atom"] == by_path[*key[:3], "b"][0]["atom"]


def test_the_slopes_are_finite_differences(model):
    axis, site = an_axis(model, n=4), model.site(2)
    sides = read_sides(model, site, axis, float("inf"))
    direction = np.random.default_rng(1).normal(size=16).astype(np.float32)
    contexts = [context for side in zip(*axis.templates, strict=True) for context in side]
    np.testing.assert_allclose(sides.odds, [odds(model, context) for context in contexts], atol=1e-4)
    step = 1e-2
    for i, context in enumerate(contexts):
        ids = torch.tensor([prompt_ids(model, context)])
        moved = []
        for h in (step, -step):
            x = model.read(ids, 2).clone()
            x[:, 1:] += h * torch.from_numpy(direction)
            log_p = model.logits(ids, 2, x)[0, -1].double().log_softmax(-1)
            moved.append(float(log_p[[13]].logsumexp(0) - log_p[[14, 15]].logsumexp(0)))
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(sides.slopes[i] @ direction, rel=0.02, abs=0.02)


def test_the_same_rule_finds_planted_atoms():
    D = np.eye(6, dtype=np.float32)
    slope = np.array([0.1, 3.0, -2.0, 9.0, 0.0, 0.0], np.float32)
    signed_a = csr_matrix([[0.0, 4.0, 0.0, 0.0, 0.0, 1.0]] * 3)
    signed_b = csr_matrix([[0.0, -4.0, 5.0, 0.0, 0.0, 1.0]] * 3)
    push = one_atom(signed_a, signed_b, D, slope)  # atom 3 leads further, but does not tell the sides apart
    assert (push.atom, push.sign) == (1, 1)
    to_a, to_b = pair_of_atoms(signed_a, signed_b, D, slope)
    assert (to_a.atom, to_a.sign) == (1, 1)
    assert (to_b.atom, to_b.sign) == (1, 1)  # its negative side, pushed against side a
    to_a, to_b = pair_of_atoms(signed_a.maximum(0), signed_b.maximum(0), D, slope)
    assert (to_a.atom, to_a.sign) == (1, 1)
    assert (to_b.atom, to_b.sign) == (2, -1)
    negative = one_atom(signed_b, signed_a, D, -slope)
    assert (negative.atom, negative.sign) == (1, -1)
    np.testing.assert_array_equal(mean_difference(D[:2], D[2:4]).vector, [0.5, 0.5, -0.5, -0.5, 0, 0])


def test_the_shift_at_a_damage_is_exact_where_it_is_linear():
    strengths, slopes = np.array([0.5, 1.0, 2.0]), np.array([1.0, -3.0])
    kl, shifts = 0.4 * strengths**2, strengths[:, None] * slopes
    for damage in (0.05, 0.1, 0.3, 1.6):
        np.testing.assert_allclose(at_damage(kl, shifts, damage), np.sqrt(damage / 0.4) * slopes)
    assert np.isnan(at_damage(kl, shifts, 1.7)).all()
    np.testing.assert_allclose(at_damage([0.4, 0.1, 0.4], shifts, 0.1), 0.25 * slopes)  # the first crossing


def rows_of(method, shift_a, shift_b, seed=0, spread=0.0, axis="x"):
    noise = spread * np.random.default_rng([seed, len(method)]).normal(size=20)
    return [
        {"method": method, "variant": "one atom", "axis": axis, "seed": seed, "direction": side, "gap": 2.0}
        | {"strength": s, "kl": s * s, "shifts": (s * (shift + noise)).tolist()}
        for side, shift in (("a", shift_a), ("b", shift_b))
        for s in (0.5, 1.0)
    ]


def test_the_summary_counts_both_directions():
    rows = [*rows_of("one", 2.0, 1.0), *rows_of("one", 2.0, 3.0, seed=1), *rows_of("two", 4.0, -1.0)]
    found = {(r["method"], r["axis"], r["direction"]): r for r in summarise(rows, [0.25])}
    assert found["one", "x", "a"]["share"] == pytest.approx(0.5)
    assert found["one", "x", "b"]["share"] == pytest.approx(0.5)
    weaker = found["one", "x", "weaker"]
    assert (weaker["share"], weaker["seed_low"], weaker["seed_high"]) == pytest.approx((0.375, 0.25, 0.5))
    assert (weaker["low"], weaker["high"]) == pytest.approx((0.25, 0.5))  # two seeds, drawn again
    assert found["two", "all", "weaker"]["share"] == pytest.approx(-0.25)
    (difference,) = differences(rows, 0.25)
    assert difference["difference"] == pytest.approx(0.625)


def test_the_interval_is_that_of_the_mean_over_templates():
    rows = rows_of("one", 1.0, 1.0, spread=1.0)
    row = next(r for r in summarise(rows, [1.0]) if r["direction"] == "a")
    deviation = np.std(np.divide(rows[1]["shifts"], 2.0)) / np.sqrt(20)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * deviation, rel=0.1)
    assert row["low"] < row["share"] < row["high"]


def test_mistakes_are_one_sentence(model):
    with pytest.raises(ValueError, match="at least one sparse autoencoder"):
        steer_bench(model, {}, **OPTIONS)
    with pytest.raises(ValueError, match="positive and increasing"):
        steer_bench(model, {"x": [tiny_sae()]}, strengths=[2, 1], **OPTIONS)
    other = tiny_sae()
    other.provenance_ = {"site": "block.3"}
    with pytest.raises(ValueError, match=r"of different sites: block\.2, block\.3"):
        steer_bench(model, {"x": [tiny_sae(), other]}, **OPTIONS)


def test_the_command_writes_tables_and_a_figure(model, tmp_path, capsys):
    axis = an_axis(model)
    folder = tmp_path / "axes"
    folder.mkdir()
    templates = [f"{{{a}|{b}}}" for a, b in axis.templates]
    held = {"a": "more", "b": "less", "targets_a": TARGETS[0], "targets_b": TARGETS[1], "templates": templates}
    (folder / "one.json").write_text(json.dumps(held))
    (tmp_path / "text.txt").write_text("\n\n".join(tiny_texts(400)))
    model.model.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    tiny_sae().save(tmp_path / "sae.safetensors")
    arguments = ["steer-bench", f"Abs={tmp_path / 'sae.safetensors'}", "--axes", str(folder), "--tokens", "128"]
    arguments += ["--model", str(tmp_path / "model"), "--text", str(tmp_path / "text.txt"), "--block", "2"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--any-place"]) == 0
    printed = capsys.readouterr().out
    assert "one (more / less): 100 % of 12 templates tell the sides apart" in printed
    assert "Abs, one atom" in printed
    names = ("steering.json", "steering.csv", "summary.csv", "differences.csv", "steering.svg", "steering.png")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
    kept = json.loads((tmp_path / "out" / "steering.json").read_text())
    with (tmp_path / "out" / "steering.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["shift"]) for row in rows] == pytest.approx([np.mean(row["shifts"]) for row in kept["rows"]])
    # run again, it goes on: what is done is kept, what the settings or another file of the axis change is not
    kept["rows"][0]["shifts"][0] = 123.0
    kept["axes"].append(kept["axes"][0] | {"axis": "two"})
    kept["rows"] += [row | {"axis": "two", "method": "stale"} for row in kept["rows"]]
    kept["contents"]["two"] = "of other templates"
    (tmp_path / "out" / "steering.json").write_text(json.dumps(kept))
    (folder / "two.json").write_text(json.dumps(held | {"templates": templates[:8]}))
    arguments += ["--any-place", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    again = json.loads((tmp_path / "out" / "steering.json").read_text())
    assert [(axis["axis"], axis["templates"]) for axis in again["axes"]] == [("one", 12), ("two", 8)]
    assert "stale" not in {row["method"] for row in again["rows"]}
    assert again["contents"]["one"] == kept["contents"]["one"] != again["contents"]["two"]
    assert again["rows"][0]["shifts"][0] == 123.0
    # where no axis is kept, there is nothing to draw, but axes to go on from
    turned = held | {"targets_a": TARGETS[1], "targets_b": TARGETS[0]}
    (tmp_path / "weak").mkdir()
    (tmp_path / "weak" / "one.json").write_text(json.dumps(turned))
    assert main([*arguments, "--axes", str(tmp_path / "weak"), "--out", str(tmp_path / "none")]) == 0
    assert f"no axis is kept, hence no tables and figure: {tmp_path / 'none'}" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["steering.json"]
    assert [axis["kept"] for axis in json.loads((tmp_path / "none" / "steering.json").read_text())["axes"]] == [False]
    file = tmp_path / "out" / "steering.json"
    assert main([*arguments, "--only", "two"]) == 0
    assert "one (more" not in capsys.readouterr().out
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "three.json").write_text(json.dumps(held | {"templates": templates[:4]}))
    assert main([*arguments, "--axes", str(tmp_path / "others"), "--out", str(tmp_path / "out")]) == 0
    kept = json.loads(file.read_text())
    assert [axis["axis"] for axis in kept["axes"]] == ["one", "two", "three"]
    assert again["contents"].items() < kept["contents"].items()
    before = file.read_text()
    for options, sentence in (
        (["--only", "three"], "no axis is called three; there are one, two"),
        (["--seed", "1"], "is of other SAEs or settings (seed); give another folder"),
    ):
        assert main([*arguments, *options]) == 1
        assert sentence in capsys.readouterr().err
    # the same atoms with another R are another SAE
    other = tiny_sae("Cardinality(4)")
    np.testing.assert_array_equal(other.components_, tiny_sae().components_)
    other.save(tmp_path / "sae.safetensors")
    assert main(arguments) == 1
    assert "is of other SAEs or settings (Abs 0); give another folder" in capsys.readouterr().err
    assert file.read_text() == before
    arguments[1] = f"={tmp_path / 'sae.safetensors'}"
    assert main(arguments) == 1
    assert "has no name before the '='" in capsys.readouterr().err


def test_a_figure_that_is_not_written_whole_leaves_the_one_before(tmp_path, monkeypatch):
    rows = rows_of("one", 2.0, 1.0) + rows_of("two", 4.0, 3.0)
    _write(tmp_path, {"rows": rows})
    before = {path.name: path.read_bytes() for path in tmp_path.glob("steering.*g")}
    assert before["steering.svg"].startswith(b"<svg")
    assert before["steering.png"].startswith(b"\x89PNG")

    whole = Figure.savefig

    def interrupted(self, file, **options):
        if options.get("format") == "svg":
            return whole(self, file, **options)
        Path(file).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path, {"rows": rows})
    assert {path.name: path.read_bytes() for path in tmp_path.glob("steering.*g")} == before


def test_only_a_name_makes_seeds_of_several_models():
    assert _paths(["a/sae.safetensors", "b/sae.safetensors"]) == {
        "a/sae.safetensors": ["a/sae.safetensors"],
        "b/sae.safetensors": ["b/sae.safetensors"],
    }
    assert _paths(["sae-0.1", "sae-0.2", "Top=x", "Top=y"]) == {
        "sae-0.1": ["sae-0.1"],
        "sae-0.2": ["sae-0.2"],
        "Top": ["x", "y"],
    }
    assert list(_paths(["./sae", "sae"])) == ["./sae", "sae"]


def test_a_folder_is_for_one_benchmark(tmp_path):
    path, settings = tmp_path / "steering.json", {"seed": "0", "Abs 0": "1f"}
    assert _done(path, settings, {}) is None
    both = [{"axis": "one"}, {"axis": "two"}]
    held = {"settings": settings, "axes": both, "rows": both, "saes": {}, "contents": {"one": "3f", "two": "4f"}}
    path.write_text(json.dumps(held))
    known = {"contents": held["contents"]}
    assert _done(path, settings, {"one": "3f", "two": "4f", "new": "5f"}) == {"axes": both, "rows": both} | known
    # an axis whose file has changed is run again, and one of another folder is kept with its digest
    for contents in ({"one": "3f", "two": "6f"}, {"two": "6f"}):
        assert _done(path, settings, contents) == {"axes": both[:1], "rows": both[:1]} | known
    path.write_text(json.dumps(held | {"contents": {}}))
    assert _done(path, settings, {"two": "4f"}) == {"axes": both[:1], "rows": both[:1], "contents": {}}
    path.write_text(json.dumps(held))
    # a further SAE would leave the axes that are done without its rows
    for others, named in (
        (settings | {"seed": "1"}, "seed"),
        ({"seed": "0"}, "Abs 0"),
        (settings | {"Top 0": "2f"}, "Top 0"),
        ({"seed": "0", "Top 0": "1f"}, "Abs 0, Top 0"),
    ):
        with pytest.raises(ValueError, match=rf"is of other SAEs or settings \({named}\); give another folder"):
            _done(path, others, {})
    for content in ("{}", "[]", "no JSON", '{"settings": 3, "axes": [], "rows": []}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"steering\.json' is no result of steer-bench; give another folder"):
            _done(path, settings, {})
