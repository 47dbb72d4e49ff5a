"""The command line on the user's own files."""

import argparse
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from proxsae.cli import COMMANDS, build_parser, main
from proxsae.commands import fit, verify


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
    return path


def test_fit_writes_a_model(data, tmp_path, capsys):
    out = tmp_path / "sae.safetensors"
    arguments = ["fit", str(data), "-R", "Cardinality(2)", "--components", "16", "--steps", "5", "--out", str(out)]
    assert main(arguments) == 0
    assert "5 steps" in capsys.readouterr().out
    from proxsae import ProxSAE

    assert ProxSAE.load(out).transform(np.load(data)).getnnz(axis=1).tolist() == [2] * 200


def test_modules_of_the_user_bring_their_classes(data, tmp_path):
    (tmp_path / "penalties.py").write_text(
        "from proxsae.regularizers import L1\nclass OfPenalties(L1):\n    pass\n", encoding="utf-8"
    )
    fit = ["fit", str(data), "-R", "0.1*OfPenalties", "--components", "16", "--steps", "2", "--out", "own.safetensors"]
    command = [sys.executable, "-m", "proxsae"]
    run = subprocess.run([*command, "--import", "penalties", *fit], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "own.safetensors").exists()
    run = subprocess.run([*command, "--import", "absent", *fit], cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr == "proxsae fit: No module named 'absent'\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "X", "-R", "Foo", "--out", "o"], "unknown regularizer 'Foo'"),
        (["fit", "X", "-R", "-0.1*L1", "--out", "o"], "the weight must not be negative"),
        (["verify", "-0.1*L1"], "the weight must not be negative, got -0.1*L1()"),
        (["fit", "X", "-R", "Cardinality(99)", "--components", "16", "--out", "o"], "k must not exceed n_components"),
        (
            ["fit", "X", "-R", "L1", "--out", "o", "--resume"],
            "resume goes on from a checkpoint: give --checkpoint, the",
        ),
        (
            ["fit", "X", "-R", "L1", "--out", "o", "--shards", "2"],
            "--shards 2 needs 2 processes or a multiple, got 1: ",
        ),
        (["fit", "X", "-R", "L1", "--out", "o", "--shards", "0"], "shards must be an integer >= 1, got 0"),
        (["fit", "X", "-R", "L1", "--out", "c/step-00000020", "--checkpoint", "c"], "is the name of a checkpoint"),
        (["fit", "missing", "-R", "L1", "--out", "o"], "missing"),
        (["evaluate", "runs/block=15/n_tokens=3", "--block", "1"], "no file at runs/block=15/n_tokens=3"),
        (["evaluate", "missing", "--block", "1"], "no file at missing"),
        (["report", "missing", "store"], "no file at missing"),
        (["convert", "missing", "out", "--format", "pickle"], "format must be one of proxsae, "),
    ],
)
def test_mistakes_are_one_line(arguments, sentence, data, capsys):
    assert main([str(data) if a == "X" else a for a in arguments]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_python_m_is_the_command_line():
    ran = subprocess.run(
        [sys.executable, "-m", "proxsae", "fit", "x.npy", "-R", "L8", "--out", "o"], capture_output=True
    )
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.startswith(b"proxsae fit: ")


def test_a_reader_that_has_gone_is_one_line(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["verify", "L1"]) == 1
        stdout.flush()  # as Python does at its end
    assert capsys.readouterr().err == "proxsae verify: nothing reads the output any more\n"


def test_what_cannot_be_printed_is_replaced(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(verify, "run", lambda _: stdout.write("caf\u00e9\n") and 0)
    assert main(["verify", "L1"]) == 0
    assert stdout.buffer.getvalue() == b"caf?\n"


def test_every_option_has_help_and_says_its_default():
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    for name, command in commands.choices.items():
        for action in command._actions:
            assert action.help, (name, action.dest)
            if action.default not in (None, False, argparse.SUPPRESS, []):
                assert "default: " in action.help, (name, action.dest)


@pytest.mark.parametrize("command", [name.replace("_", "-") for name in COMMANDS])
def test_help_has_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert "example:" in printed
    import shlex

    example = " ".join(printed.split("example:")[1].split())
    options = build_parser().parse_args(shlex.split(example)[1:])
    assert options.command == command


def test_verify_prints_its_checks(capsys):
    assert main(["verify", "0.1*L1 + NonNegative"]) == 0
    assert capsys.readouterr().out.startswith("passed: 0.1*L1() + NonNegative()")
    assert main(["verify", "0.1*L8"]) == 1
    assert "unknown regularizer 'L8'" in capsys.readouterr().err


def test_prove_prints_a_line_a_theorem(capsys, monkeypatch):
    monkeypatch.setattr("proxsae.verification.proofs.catalogue.CLASSES", ("L1", "L0"))
    monkeypatch.setattr("proxsae.verification.proofs.catalogue.SUMS", ("L0 + NonNegative",))
    for name in ("SELECTIONS", "GROUPS", "CERTIFIED"):
        monkeypatch.setattr(f"proxsae.verification.proofs.catalogue.{name}", ())
    monkeypatch.setattr("proxsae.verification.proofs.catalogue.WHOLE_CODES", ("Simplex",))
    monkeypatch.setattr("proxsae.verification.proofs.catalogue.SEARCHED", ("L1MinusL2",))
    assert main(["prove"]) == 0
    lines = capsys.readouterr().out.splitlines()
    verdicts = [line.split(" ", 1)[0] if "n =" not in line else line[:16] for line in lines]
    assert verdicts == ["proved", "proved", "proved", "proved for n = 2", "searched"]


def test_sigterm_ends_a_command_as_ctrl_c_unless_it_is_taken(monkeypatch):
    seen = []
    monkeypatch.setattr(verify, "run", lambda _: seen.append(signal.getsignal(signal.SIGTERM)))
    of_user = [signal.SIG_IGN, lambda *_: None]
    for handler in (signal.SIG_DFL, *of_user):
        before = signal.signal(signal.SIGTERM, handler)
        try:
            main(["verify", "L1"])
            assert signal.getsignal(signal.SIGTERM) is handler
        finally:
            signal.signal(signal.SIGTERM, before)
    monkeypatch.setenv("WORLD_SIZE", "2")  # set by torchrun: fit alone is shared
    monkeypatch.setattr(fit, "run", verify.run)
    main(["verify", "L1"])
    main(["fit", "x.npy", "-R", "L1", "--out", "sae.safetensors"])
    assert seen == [signal.default_int_handler, *of_user, signal.default_int_handler, signal.SIG_DFL]
