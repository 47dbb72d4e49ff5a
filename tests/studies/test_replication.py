"""The replication: which commands it runs, that they are commands, what it keeps of them, and its page."""

import contextlib
import io
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from llm_models import one_thread, tiny_texts, tiny_tokenizer, tiny_transformer  # noqa: F401

from proxsae.cli import build_parser, main
from proxsae.studies import Configuration, Source, read_rows
from proxsae.studies.replication import COMPARED, Step, _trained, replicate, steps
from proxsae.studies.results import Results

TRAINING = {"n_components": 32, "n_steps": 10, "batch_size": 128, "learning_rate": 0.002}


def in_this_process(arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(list(arguments))
    return status, out.getvalue()


def test_every_step_is_a_command_with_the_options_it_has(tmp_path):
    source = Source("3", 1000, 200, model="m", text="t.txt", field="body", context_length=64)
    todo = steps(source, TRAINING, [16.0, 32.0], 2, tmp_path, "cpu", ["one", "two"])
    parsed = {step.name: build_parser().parse_args(step.arguments) for step in todo}
    assert set(parsed) == {"sweep", "factors", "axes", "steering", "probing"}
    for name in ("sweep", "factors"):
        options = parsed[name]
        assert (options.model, options.text, options.field, options.block) == ("m", "t.txt", "body", "3")
        assert (options.tokens, options.heldout_tokens, options.context, options.device) == (1000, 200, 64, "cpu")
        assert (options.seeds, options.components, options.steps, options.batch_size) == (2, 32, 10, 128)
    assert (parsed["sweep"].l0, parsed["factors"].l0) == ("16,32", "32")
    assert len(parsed["probing"].saes) == 10
    assert parsed["axes"].sae.endswith("sweep/saes/abstopk-32-l0_32-seed0.safetensors")
    assert parsed["axes"].against.endswith("sweep/saes/topk-32-l0_32-seed0.safetensors")
    assert {given.split("=")[0] for given in parsed["steering"].saes} == {"topk", "abstopk", "jumprelu"}
    assert parsed["steering"].only == ["one", "two"]
    assert "--only" not in {word for step in steps(source, TRAINING, [16.0], 1, tmp_path) for word in step.arguments}


def test_the_sweep_makes_the_models_that_the_other_steps_read(tmp_path, monkeypatch):
    monkeypatch.setattr("proxsae.studies.replication._run", in_this_process)
    tiny_transformer().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("\n\n".join(tiny_texts(200)))
    source = Source("2", 1000, 50, model=str(tmp_path / "model"), text=str(tmp_path / "text.txt"), context_length=16)
    todo = steps(source, {**TRAINING, "n_steps": 2}, [2.0, 4.0], 1, tmp_path / "out", "cpu")
    assert replicate(todo[:1], tmp_path / "out") == []
    page = (tmp_path / "out" / "replication.html").read_text()
    assert len(read_rows(tmp_path / "out" / "sweep")) == 10
    for given in build_parser().parse_args(todo[-1].arguments).saes:
        assert (tmp_path / "out" / "sweep" / "saes" / given.rsplit("/", 1)[1]).is_file()
    assert todo[0].command.startswith("proxsae sweep --regularizers=topk,topk:2,abstopk,jumprelu,relu --l0=2,4")
    assert "abstopk 32 against topk 64" in page
    assert "<svg" in page


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path, monkeypatch):
    todo = [Step("one", "First?", ("fit", "x")), Step("two", "Second?", ("fit", "y"))]
    ran = []

    def run(arguments):
        ran.append(arguments[1])
        return (1, "") if ran == ["x"] else (0, f"told of <{arguments[1]}>\n")

    monkeypatch.setattr("proxsae.studies.replication._run", run)
    assert replicate(todo, tmp_path) == ["one"]
    page = (tmp_path / "replication.html").read_text()
    assert ran == ["x", "y"]
    assert "exit status 1" in page
    assert "told of &lt;y&gt;" in page
    assert replicate(todo, tmp_path) == []
    page = (tmp_path / "replication.html").read_text()
    assert ran == ["x", "y", "x"]
    assert "exit status" not in page
    assert page.count("<h2>") == 2
    assert page.index("First?") < page.index("told of &lt;x&gt;") < page.index("Second?")
    replicate(todo, tmp_path)
    assert ran == ["x", "y", "x"]


def test_what_was_done_with_other_arguments_is_refused_before_anything_runs(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr("proxsae.studies.replication._run", lambda arguments: (ran.append(arguments[0]), (0, ""))[1])
    replicate([Step("two", "Second?", ("fit", "a b", "--steps=2"))], tmp_path)
    page = (tmp_path / "replication.html").read_text()
    todo = [Step("one", "First?", ("sweep",)), Step("two", "Second?", ("fit", "a b", "--steps=3"))]
    with pytest.raises(ValueError, match=r"two\.txt' was made with --steps=2, and --steps=3 is asked for: give"):
        replicate(todo, tmp_path)
    assert ran == ["fit"]
    assert (tmp_path / "replication.html").read_text() == page


def test_a_text_in_the_folder_is_not_that_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("proxsae.studies.replication._run", lambda _: (0, ""))
    out = tmp_path / "out"
    first, other = (
        steps(Source("3", 1000, 200, text=text), TRAINING, [16], 1, "out")[:1] for text in ("out/a.txt", "a.txt")
    )
    replicate(first, out)
    with pytest.raises(ValueError, match=r"made with --text=out/a\.txt, and --text=a\.txt is asked for: give another"):
        replicate(other, out)


def test_a_moved_folder_goes_on_whatever_the_device(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxsae.studies.replication._run", lambda _: (0, ""))
    source = Source("3", 1000, 200)

    def done_in(out, device="auto", training=TRAINING):
        for step in (todo := steps(source, training, [16], 1, out, device)):
            for path in step.saes:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).touch()
        return replicate(todo, out)

    done_in("k=1/first")
    (tmp_path / "k=1" / "first").rename(tmp_path / "second")
    monkeypatch.setattr("proxsae.studies.replication._run", None)  # nothing is run again
    for out, device in (("second", "auto"), (tmp_path / "second", "cpu"), ("k=1/../second", "cuda")):
        assert done_in(out, device) == []
    with pytest.raises(ValueError, match="was made with --steps=10, and --steps=20 is asked for: give another folder"):
        done_in("second", training={**TRAINING, "n_steps": 20})
    (tmp_path / "second" / "sweep.txt").write_text("FVU isn't all\n")
    with pytest.raises(ValueError, match=r"sweep\.txt' does not begin with the command that made it: give"):
        done_in("second")


def test_a_step_waits_for_the_models_it_reads(tmp_path, monkeypatch):
    ran = []

    def run(arguments):
        ran.append(arguments[0])
        return (1 if arguments[0] == "sweep" else 0), ""

    monkeypatch.setattr("proxsae.studies.replication._run", run)
    (tmp_path / "there").touch()
    needs = {"axes": ("there",), "probing": ("there", "missing")}
    todo = [Step("sweep", "First?", ("sweep",))]
    todo += [Step(name, name, (name,), tuple(str(tmp_path / sae) for sae in saes)) for name, saes in needs.items()]
    assert replicate(todo, tmp_path) == ["sweep", "probing"]
    assert ran == ["sweep", "axes"]
    assert f"Not run: the sweep has not made {tmp_path / 'missing'}." in (tmp_path / "replication.html").read_text()


def test_the_sweep_runs_again_where_a_step_lacks_its_models(tmp_path, monkeypatch):
    ran, sae = [], tmp_path / "sae"

    def run(arguments):
        ran.append(arguments[0])
        sae.touch()
        return int(ran == ["sweep", "axes"]), ""

    monkeypatch.setattr("proxsae.studies.replication._run", run)
    todo = [Step("sweep", "First?", ("sweep",)), Step("axes", "Second?", ("axes",), (str(sae),))]
    assert replicate(todo, tmp_path) == ["axes"]
    for _ in range(2):  # once the step is done, it needs its models no more
        sae.unlink()
        assert replicate(todo, tmp_path) == []
    assert ran == ["sweep", "axes"] * 2


def test_the_sweep_does_not_run_again_for_models_whose_rows_failed(tmp_path, monkeypatch):
    ran, c, source = [], Configuration("topk", 32, 4.0), Source("3", 1000)
    failed = {"name": c.name, "configuration": asdict(c), "source": source.as_dict(), "error": "diverged"}

    def run(arguments):
        ran.append(arguments[0])
        Results(tmp_path / "sweep", source).write(failed)
        return 3, "failed: topk\n"

    monkeypatch.setattr("proxsae.studies.replication._run", run)
    todo = [
        Step("sweep", "First?", ("sweep",)),
        Step("axes", "Second?", ("axes",), (_trained(tmp_path, "topk", 4, 0, 32),)),
    ]
    for _ in range(2):
        assert replicate(todo, tmp_path) == ["axes"]
    assert ran == ["sweep"]


def test_steps_without_the_sweep_leave_its_mark(tmp_path, monkeypatch):
    monkeypatch.setattr("proxsae.studies.replication._run", lambda _: (0, ""))
    replicate([Step("sweep", "First?", ("sweep",))], tmp_path)
    assert replicate([Step("axes", "Second?", ("axes",), (str(tmp_path / "sae"),))], tmp_path) == ["axes"]
    assert (tmp_path / "sweep.txt").exists()


def test_no_level_is_one_sentence(tmp_path, capsys):
    assert main(["replicate", "--l0", ",", "--out", str(tmp_path)]) == 1
    assert "l0 is empty; give at least one" in capsys.readouterr().err


def test_an_unknown_axis_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("proxsae.studies.replication._run", None)
    assert main(["replicate", "--only", "typo", "sentiment", "--out", str(tmp_path)]) == 1
    assert "no axis is called typo; there are" in capsys.readouterr().err


def test_a_sweep_that_ends_with_failed_rows_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("proxsae.studies.replication._run", lambda _: (3, "failed: relu\n"))
    assert replicate([Step("sweep", "First?", ("sweep",))], tmp_path) == []
    assert "failed: relu" in (tmp_path / "replication.html").read_text()


def test_interrupted_it_stops(tmp_path, monkeypatch):
    todo = [Step("one", "First?", ("fit", "x")), Step("two", "Second?", ("fit", "y"))]
    monkeypatch.setattr("proxsae.studies.replication._run", lambda _: (130, ""))
    with pytest.raises(KeyboardInterrupt):
        replicate(todo, tmp_path)


@pytest.mark.parametrize("of_group", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_command_ends_its_step_which_clears_away(number, of_group, tmp_path, monkeypatch, capsys):
    step, half, printed = tmp_path / "step", tmp_path / "half", []
    half.touch()
    clearing = f"trap 'exit 1' INT TERM; kill $!; sleep 0.3; rm {half}; exit 130"
    step.write_text(f'#!/bin/sh\nsleep 5 &\ntrap "{clearing}" INT TERM\necho $$\nwait\n'.replace("$!", "\\$!"))
    step.chmod(0o700)

    def ended(line, **_):
        printed.append(line)
        if of_group:
            os.kill(int(line), number)
            time.sleep(0.1)  # until it clears away
        os.kill(os.getpid(), number)

    monkeypatch.setattr(sys, "executable", str(step))
    monkeypatch.setattr("proxsae.studies.replication.print", ended, raising=False)
    monkeypatch.setattr("proxsae.studies.replication.ENDS_BY_ITSELF", 4 if of_group else 0.1)
    assert main(["replicate", "--out", str(tmp_path / "out")]) == 130
    assert not half.exists()
    assert "interrupted" in capsys.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(int(printed[0]), 0)


def test_a_second_ctrl_c_ends_the_step_at_once(tmp_path, monkeypatch):
    step, whole, printed = tmp_path / "step", tmp_path / "whole", []
    step.write_text(f"#!/bin/sh\necho $$\nsleep 5\ntouch {whole}\n")
    step.chmod(0o700)
    again = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def ended(line, **_):
        printed.append(line)
        again.start()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "executable", str(step))
    monkeypatch.setattr("proxsae.studies.replication.print", ended, raising=False)
    monkeypatch.setattr("proxsae.studies.replication.ENDS_BY_ITSELF", 60)
    with pytest.raises(KeyboardInterrupt):
        replicate([Step("one", "First?", ("fit", "x"))], tmp_path)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(int(printed[0]), 0)
    assert not whole.exists()


def test_it_runs_in_any_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(replicate, [Step("one", "First?", ("fit", "x"))], tmp_path).result() == []


def test_the_command_runs_the_steps(tmp_path, monkeypatch, capsys):
    ran, command = [], ["replicate", "--seeds", "1", "--out", str(tmp_path / "out")]

    def run(arguments):
        ran.append(arguments[0])
        return int(arguments[-1].endswith("/sweep")), "done"

    monkeypatch.setattr("proxsae.studies.replication._run", run)
    assert main(command) == 1
    assert ran == ["sweep", "sweep"]
    assert capsys.readouterr().out.endswith("replication.html\nnot done: sweep, axes, steering, probing\n")
    (tmp_path / "out" / "sweep" / "saes").mkdir(parents=True)
    for name in COMPARED:
        Path(_trained(tmp_path / "out", name, 32, 0, 1152)).touch()
    monkeypatch.setattr("proxsae.studies.replication._run", lambda arguments: (ran.append(arguments[0]), (0, ""))[1])
    assert main(command) == 0
    assert ran[2:] == ["sweep", "axes", "steer-bench", "probe"]
    assert capsys.readouterr().out.endswith("replication.html\n")
