import copy
import errno
import gc
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import JSON, damaged_bytes
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from proxsae import ProxSAE
from proxsae.data.shard import StoreError, write_index
from proxsae.data.store import ActivationStore
from proxsae.data.writer import StoreWriter
from proxsae.metrics import reconstruction_metrics

LENGTH, WIDTH = 6, 3
HEADER = {
    "model": "none", "weights": "none", "site": "block.1", "tokenizer": "none", "text": "none", "split": "all",
    "seed": 0, "drop": 0, "excluded_tokens": [], "dtype": "float32", "n_features": WIDTH, "context_length": LENGTH,
    "batch_size": 2, "n_tokens": 40, "dropped_positions": [], "median_norm": 1.0, "complete": False,
}  # fmt: skip
COUNTS = {"dropped_by_position": 1, "dropped_special": 2, "dropped_massive": 3, "large_kept": 0}


def _batches(count):
    random = np.random.default_rng(0)
    for _ in range(count):
        context, position = np.nonzero(random.random((2, LENGTH)) < 0.7)
        tokens = random.integers(0, 99, (2, LENGTH))
        yield random.normal(size=(len(context), WIDTH)).astype(np.float32), context, position, tokens


def _write(path, count=5, shard_bytes=12 * WIDTH * 4, **header):
    writer = StoreWriter(path, HEADER | header, shard_bytes=shard_bytes)
    for batch in _batches(count):
        writer.add(*batch, COUNTS)
    return writer.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def rows():
    return np.concatenate([batch[0] for batch in _batches(5)])


def test_it_is_the_array(store, rows):
    assert (store.shape, len(store), store.dtype) == (rows.shape, len(rows), np.float32)
    assert len(store.info["drop"] if isinstance(store.info["drop"], list) else [0]) == 1
    assert len(list(store.path.glob("*.safetensors"))) > 1
    np.testing.assert_array_equal(store[:], rows)
    np.testing.assert_array_equal(np.asarray(store), rows)
    np.testing.assert_array_equal(store[-1], rows[-1])
    np.testing.assert_array_equal(store[rows[:, 0] > 0], rows[rows[:, 0] > 0])
    np.testing.assert_array_equal(np.stack(list(store)), rows)
    assert np.asarray(store, dtype=np.float64).dtype == np.float64
    copy = store[2:4]
    copy[:] = 0
    np.testing.assert_array_equal(store[2:4], rows[2:4])
    store.verify()
    assert store.info["rows"] == len(rows)
    assert store.info["contexts"] == 10
    assert (store.info["dropped_by_position"], store.info["dropped_massive"]) == (5, 15)


_slices = st.slices(41)
_indices = st.lists(st.integers(-30, 29), max_size=50).map(lambda values: np.array(values, dtype=np.int64))


@given(st.one_of(_slices, _indices, _indices.map(lambda values: values.reshape(-1, 1))))
def test_it_indexes_as_numpy_does(store, rows, key):
    if not isinstance(key, slice):
        key %= len(rows)
    np.testing.assert_array_equal(store[key], rows[key])


def test_every_row_is_traced_to_its_token(store):
    row = 0
    for number, (_, context, position, tokens) in enumerate(_batches(5)):
        for local, place in zip(context, position, strict=True):
            ids, at = store.tokens_of(row)
            np.testing.assert_array_equal(ids, tokens[local])
            assert at == place
            assert [int(value[0]) for value in store.trace([row])] == [2 * number + local, place]
            row += 1
    assert row == len(store)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (1000, "Row 1000 was asked of a store of"),
        (np.array([0, -1000]), "Row -1000 was asked"),
        (np.array([0.5]), "Rows of type float64"),
        (np.array([True]), r"A mask of shape \(1,\)"),
        ("a", "Rows of type"),
        ((2, 0), "a store is indexed by rows alone"),
        ((slice(2), slice(1)), "a store is indexed by rows alone"),
    ],
)
def test_wrong_rows(store, key, message):
    with pytest.raises(IndexError, match=message):
        store[key]


def test_wrong_contexts(store):
    for context in (-1, 10):
        with pytest.raises(IndexError, match="store of 10 contexts"):
            store.tokens(context)


def test_bfloat16(tmp_path, rows):
    store = _write(tmp_path / "brain", dtype="bfloat16")
    rounded = torch.from_numpy(rows).to(torch.bfloat16)
    assert store.dtype == np.float32
    np.testing.assert_array_equal(store[:], rounded.float().numpy())
    tensors = load_file(next(store.path.glob("*.safetensors")))
    assert tensors["activations"].dtype == torch.bfloat16
    size = sum(path.stat().st_size for path in store.path.glob("*.safetensors"))
    assert size < sum(path.stat().st_size for path in _write(tmp_path / "wide").path.glob("*.safetensors"))
    # one reader: the same numbers train the same model, whatever holds them
    options = {"n_components": 6, "n_steps": 5, "batch_size": 16, "random_state": 0}
    saes = [ProxSAE("Cardinality(2)", **options).fit(X) for X in (store, rounded, rounded.float().numpy())]
    for sae in saes[1:]:
        np.testing.assert_array_equal(sae.components_, saes[0].components_)
    large = StoreWriter(tmp_path / "large", HEADER | {"dtype": "bfloat16"})
    one = [*[np.zeros(1, int)] * 2, np.zeros((1, LENGTH)), COUNTS]
    large.add(np.full((1, WIDTH), 1e30, np.float32), *one)  # which float16 cannot hold
    np.testing.assert_allclose(large.close()[:], 1e30, rtol=0.01)
    with pytest.raises(ValueError, match="not finite as bfloat16"):
        large.add(np.full((1, WIDTH), 3.4e38, np.float32), *one)


def test_float16(tmp_path, rows):
    store = _write(tmp_path / "half", dtype="float16")
    assert store.dtype == np.float16
    np.testing.assert_array_equal(store[:], rows.astype(np.float16))
    writer = StoreWriter(tmp_path / "large", HEADER | {"dtype": "float16"})
    with pytest.raises(ValueError, match=r"not finite as float16 .*the largest is 1e\+06"):
        writer.add(
            np.full((1, WIDTH), 1e6, np.float32), np.zeros(1, int), np.zeros(1, int), np.zeros((1, LENGTH)), COUNTS
        )
    with pytest.raises(ValueError, match="dtype='int8' was given; allowed are float32, float16, bfloat16"):
        StoreWriter(tmp_path / "int", HEADER | {"dtype": "int8"})


@pytest.fixture
def damaged(store, tmp_path):
    return shutil.copytree(store.path, tmp_path / "damaged")


def _edit(path, change):
    index = json.loads((path / "index.json").read_text())
    del index["checksum"]
    change(index)
    write_index(path, index)


def test_truncated_shards(damaged):
    shard = sorted(damaged.glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors' has \d+ bytes, but its field 'bytes'"):
        ActivationStore(damaged)
    shard.unlink()
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors' that index\.json names is missing"):
        ActivationStore(damaged)


def test_a_damaged_shard_is_found_when_it_is_read(damaged, rows):
    shard = sorted(damaged.glob("*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    store = ActivationStore(damaged)
    np.testing.assert_array_equal(store[:5], rows[:5])  # the first shard is whole
    for read in (store.verify, lambda: store[:], lambda: store.trace([len(rows) - 1]), lambda: store.tokens(4)):
        with pytest.raises(StoreError, match=r"shard-00001\.safetensors' is damaged: its field 'crc32'"):
            read()
    assert ActivationStore(damaged, check=False)[:].shape == rows.shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda old: b"x" * len(old), "not a safetensors file: its header length"),
        (lambda old: old[:8] + b"x" * (len(old) - 8), "its header is not JSON"),
        (lambda old: old.replace(b"position", b"location"), "no tensor 'position' of type I32"),
        (lambda old: old.replace(b'"F32"', b'"I32"'), "no tensor 'activations' of type F32"),
        (lambda old: old.replace(b"[0,", b"[1,"), "'data_offsets' of the tensor '.*' do not fit"),
    ],
)
def test_foreign_shards(damaged, content, message):
    shard = sorted(damaged.glob("*.safetensors"))[0]
    shard.write_bytes(content(shard.read_bytes()))
    with pytest.raises(StoreError, match=message):
        ActivationStore(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(format="other"), "'format' is not 'proxsae-activations'"),
        (lambda index: index.update(version=9), "has version 9; this proxsae reads version 2"),
        (lambda index: index.pop("site"), r"index\.json': the field 'site' is missing"),
        (lambda index: index.update(n_features="3"), "the field 'n_features' is missing or not of type int"),
        (lambda index: index.update(n_features=4), "no tensor 'activations' of type F32 and shape"),
        (lambda index: index.update(n_features=0), "'n_features' is 0; it must be positive"),
        (lambda index: index.update(dtype="int8"), "'dtype' is 'int8'; allowed are float32, float16"),
        (lambda index: index["shards"][1].pop("crc32"), r"the field 'shards\[1\]\.crc32' is missing"),
        (lambda index: index["shards"][0].update(rows=-1), r"the field 'shards\[0\]\.rows' is -1"),
        (lambda index: index["shards"][0].update(rows=2**63), r"the field 'shards\[0\]\.rows' is 9223372036854775808"),
        (lambda index: index["shards"][0].update(rows=True), r"'shards\[0\]\.rows' is missing or not of type int"),
        (lambda index: index["shards"][0].update(rows=10**9), "no tensor 'activations' of type F32 and shape"),
        (lambda index: index["shards"][0].update(file="../x"), r"'shards\[0\]\.file' is not 'shard-00000"),
        (lambda index: index["shards"].extend(index["shards"] * 1000), r"\.file' is not 'shard-0000\d"),
        (lambda index: index["shards"].reverse(), r"'shards\[0\]\.file' is not 'shard-00000"),
        (lambda index: index.update(median_norm=float("nan")), "'median_norm' is nan"),
        (lambda index: index.update(dropped_positions=["0"]), "'dropped_positions' holds something else than numbers"),
        (lambda index: index.update(complete=1), "'complete' is missing or not of type bool"),
        (lambda index: index.update(n_features=10**30), "'n_features' is 10+; it must be positive and below"),
        (lambda index: index["shards"].append(1), r"'shards\[\d\]' is not an object"),
        (lambda index: index.update(site="a a", widths=[1, 2]), "the field 'site' names a site twice: 'a a'"),
    ],
)
def test_a_wrong_index(damaged, change, message):
    _edit(damaged, change)
    with pytest.raises(StoreError, match=message):
        ActivationStore(damaged)


@pytest.mark.parametrize(("name", "wrong"), [("position", -5), ("position", LENGTH), ("context", 10**9)])
def test_rows_of_no_token_are_refused(name, wrong, tmp_path):
    rows, *places, tokens = next(_batches(1))
    places[name == "position"][0] = wrong
    writer = StoreWriter(tmp_path, HEADER)
    writer.add(rows, *places, tokens, COUNTS)
    with pytest.raises(StoreError, match=rf"'{tmp_path}': a {name} of a row is outside 0 to"):
        writer.close().tokens_of(0)


def test_no_index_or_half_an_index(damaged, tmp_path):
    index = damaged / "index.json"
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"index\.json' is not JSON"):
        ActivationStore(damaged)
    with pytest.raises(StoreError, match=r"is not an activation store: it holds no index\.json"):
        ActivationStore(tmp_path)
    with pytest.raises(StoreError, match=r"^There is no such file or folder: '.*/nothing'\.$"):
        ActivationStore(tmp_path / "nothing")


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="exists and is no activation store"):
        StoreWriter(tmp_path, HEADER)
    with pytest.raises(StoreError, match="exists and is no activation store"):
        StoreWriter(tmp_path / "thesis.tex", HEADER)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_harvest_is_not_mixed_in(damaged):
    with pytest.raises(
        StoreError, match=r"holds a harvest with site='block\.1', so one with site='block\.2' cannot be added"
    ):
        StoreWriter(damaged, HEADER | {"site": "block.2"})
    with pytest.raises(StoreError, match="holds a store already"):
        StoreWriter(damaged, HEADER, resume=False)


def test_two_writers_never_share_a_folder(tmp_path, damaged):
    first = StoreWriter(tmp_path / "new", HEADER)
    with pytest.raises(StoreError, match=r"new' is being written by another harvest: give another folder"):
        StoreWriter(tmp_path / "new", HEADER)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index.json"]
    child = multiprocessing.get_context("fork").Process(target=signal.pause)  # which inherits the descriptor
    child.start()
    assert not len(first.close())
    with StoreWriter(tmp_path / "new", HEADER) as writer:  # which ends without being closed
        writer.add(*next(_batches(1)), COUNTS)
    with pytest.raises(StoreError, match="holds a store already") as refused:
        StoreWriter(damaged, HEADER, resume=False)
    StoreWriter(
        damaged, HEADER | {"widths": [WIDTH]}
    ).close()  # although the writer that was refused is kept by its error
    assert refused.traceback
    child.kill()
    child.join()


def test_a_complete_store_is_for_several_at_once(tmp_path):
    header = HEADER | {"widths": [WIDTH]}
    with StoreWriter(tmp_path / "new", header) as writer:
        writer.add(*next(_batches(1)), COUNTS)
        store = writer.close()
    with StoreWriter(tmp_path / "new", header) as first, StoreWriter(tmp_path / "new", header) as second:
        assert first.index["complete"]
        assert first.rows == second.rows == len(store)


KILLED = """
import os, signal, sys
from proxsae.data.writer import StoreWriter
from test_store import COUNTS, HEADER, _batches
writer = StoreWriter(sys.argv[1], HEADER, shard_bytes=1)
first, second = _batches(2)
writer.add(*first, COUNTS)
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
writer.add(*second, COUNTS)
"""


def test_a_killed_writer_leaves_no_lock_and_its_half_shard_goes(tmp_path):
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "new"], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "new").glob(".shard-00001.safetensors.*.partial"))) == 1
    StoreWriter(tmp_path / "new", HEADER | {"widths": [WIDTH]}).close()
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"index.json", "shard-00000.safetensors"}


def test_without_locks_the_half_shard_of_another_writer_stays(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    first = StoreWriter(tmp_path / "new", HEADER)
    half = tmp_path / "new" / ".shard-00000.safetensors.1.partial"
    half.touch()
    StoreWriter(tmp_path / "new", HEADER)
    assert half.exists()
    assert not len(first.close())


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, rows):
    writer = StoreWriter(tmp_path, HEADER, shard_bytes=12 * WIDTH * 4)
    parts = list(_batches(5))
    for batch in parts[:3]:
        writer.add(*batch, COUNTS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.warns(UserWarning, match="holds 16 of the 40 rows asked for"):
        assert len(ActivationStore(tmp_path)) == 16

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("proxsae.data.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        any(writer.add(*batch, COUNTS) for batch in parts[3:])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.warns(UserWarning, match="its harvest was interrupted or still runs"):
        assert not ActivationStore(tmp_path).info["complete"]


def test_more_shards_than_may_stay_open(tmp_path, monkeypatch, rows):
    monkeypatch.setattr("proxsae.data.store._OPEN_SHARDS", 1)
    store = _write(tmp_path)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(store[order], rows[order])
    assert len(store._open) == 1


def test_an_edited_index_is_refused(damaged):
    index = damaged / "index.json"
    text = index.read_text()
    for old, new in (
        ('"model": "none"', '"model": "other"'),
        ('"site": "block.1"', '"site": "block.2"'),
        ("0.0", "1.0"),
    ):
        if old in text:
            index.write_text(text.replace(old, new))
            with pytest.raises(StoreError, match=r"index\.json' is damaged or was edited: its field 'checksum'"):
                ActivationStore(damaged)


def test_a_deeply_nested_index_is_refused(damaged):
    (damaged / "index.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match=r"index\.json' is not JSON"):
        ActivationStore(damaged)


def test_a_part_is_its_rows(store, rows):
    part = store.part(7, 25)
    assert (part.shape, len(part)) == ((18, WIDTH), 18)
    np.testing.assert_array_equal(np.asarray(part), rows[7:25])
    np.testing.assert_array_equal(part[-1], rows[24])
    np.testing.assert_array_equal(part[[17, 0]], rows[[24, 7]])
    np.testing.assert_array_equal(part.part(2, 99)[:], rows[9:25])
    assert [int(value[0]) for value in part.trace([0])] == [int(value[0]) for value in store.trace([7])]
    with pytest.raises(IndexError, match="Row 18 was asked of a store of 18 rows"):
        part[18]


def test_targets_of_other_tokens_are_refused(tmp_path):
    random = np.random.default_rng(0)
    tokens = random.integers(0, 99, (2, LENGTH))

    def harvested(name, dropped, tokens=tokens):
        context, position = np.nonzero(np.broadcast_to(np.arange(LENGTH) != dropped, (2, LENGTH)))
        writer = StoreWriter(tmp_path / name, HEADER, shard_bytes=12 * WIDTH * 4)
        writer.add(random.normal(size=(len(context), WIDTH)).astype(np.float32), context, position, tokens, COUNTS)
        return writer.close()

    X, Y = harvested("x", 0), harvested("y", 0)
    sae = ProxSAE("Cardinality(1)", 4, n_steps=1, random_state=0).fit(X, Y)
    assert sae.score(X, Y) == sae.score(X[:], Y[:])
    ahead = X.part(0, 5), X.part(1, 6)  # the next token, on purpose
    assert sae.score(*ahead) == sae.score(*(part[:] for part in ahead))
    others = harvested("of other positions", 3), harvested("of another text", 0, tokens + 1)
    for A, B in [*((X, other) for other in others), (X.part(0, 5), Y.part(1, 6))]:
        for call in (sae.fit, sae.score, lambda X, Y: reconstruction_metrics(sae, X, Y)):
            with pytest.raises(ValueError, match="row 0 of X and of Y are not of the same token"):
                call(A, B)


def test_parts_of_two_places_are_of_the_same_tokens(tmp_path):
    header = HEADER | {"site": "mlp_in.1 mlp_out.1", "widths": [2, WIDTH - 2], "median_norms": []}
    random = np.random.default_rng(0)
    writer = StoreWriter(tmp_path / "two", header, shard_bytes=12 * WIDTH * 4)
    context, position = np.divmod(np.arange(2 * LENGTH), LENGTH)
    rows, tokens = random.normal(size=(2 * LENGTH, WIDTH)), random.integers(0, 99, (2, LENGTH))
    writer.add(rows.astype(np.float32), context, position, tokens, COUNTS)
    store = writer.close()
    X, Y = store.at("mlp_in.1"), store.at("mlp_out.1")
    Y.part(1, 6).check_same_tokens(X.part(1, 6))
    for targets in (Y.part(1, 6), store.part(1, 6)):
        with pytest.raises(ValueError, match="row 0 of X and of Y are not of the same token"):
            targets.check_same_tokens(X.part(0, 5))


def test_a_store_travels_to_another_process_by_name(store, rows):
    part = store.part(7, 25)
    part[:]
    sent = pickle.dumps(part)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent)[:], rows[7:25])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of open files")
def test_a_store_that_is_dropped_closes_its_files(store):
    before = len(list(Path("/proc/self/fd").iterdir()))
    gc.disable()
    try:
        for _ in range(50):
            ActivationStore(store.path)[:]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    finally:
        gc.enable()


@pytest.mark.fuzz
@given(st.data())
def test_a_damaged_store_is_refused_or_unharmed(store, rows, tmp_path_factory, data):
    """Whatever happens to a byte of a file, what is read is right, or a sentence names the file."""
    name = data.draw(st.sampled_from(sorted(path.name for path in store.path.iterdir())))
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store.path, folder)
    (folder / name).write_bytes(data.draw(damaged_bytes((store.path / name).read_bytes())))
    try:
        read = ActivationStore(folder)
        content, traced = read[:], [read.trace(np.arange(len(read))), read.tokens(0)]
    except StoreError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "fuzzed" in refusal
        return
    np.testing.assert_array_equal(content, rows)
    np.testing.assert_array_equal(traced[0], store.trace(np.arange(len(store))))
    assert read.info == store.info


@pytest.mark.fuzz
@given(st.data())
def test_a_contradictory_index_is_refused_or_read(store, tmp_path_factory, data):
    """An index that is whole, its checksum included, but says something else, is read as it says or refused."""
    folder = tmp_path_factory.getbasetemp() / "contradictory"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store.path, folder)
    index = json.loads((folder / "index.json").read_text())
    del index["checksum"]
    record = data.draw(st.sampled_from([index, *index["shards"]]))
    field = data.draw(st.sampled_from(sorted(record)))
    record[field] = data.draw(JSON | st.integers(-3, 60) | st.just(copy.deepcopy(index["shards"]) * 2))
    write_index(folder, index)
    refusal = "contradictory"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = ActivationStore(folder)
        assert read[:].shape == read.shape  # no shards, say
    except StoreError as error:
        refusal = str(error)
    assert "contradictory" in refusal
