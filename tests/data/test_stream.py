"""Rows that are read block by block: an order of their own, ahead of their use."""

import threading
import time
import zlib
from typing import ClassVar

import numpy as np
import pytest
import torch

from proxsae import ProxSAE, fit_many
from proxsae.data.stream import ReadAhead, ShuffledRows, Stream
from proxsae.regularizers import L1, Cardinality

X = (np.random.default_rng(0).normal(size=(1000, 12)) + 1).astype(np.float32)


def stream_of(data=X, seed=0, buffer_rows=300):
    return ShuffledRows(data, seed=seed, buffer_rows=buffer_rows)


def rows_of(reader, start, n_rows):
    return reader.read(start, n_rows, torch.float32, torch.device("cpu"))[0].numpy()


@pytest.fixture
def reader():
    reader = ReadAhead(stream_of())
    yield reader
    reader.close()


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr("proxsae.data.stream.RUN", 64)


def sorted_rows(rows):
    return rows[np.lexsort(rows.T)]


def test_every_epoch_is_all_rows_in_an_order_of_its_own(reader):
    epochs = [rows_of(reader, 1000 * epoch, 1000) for epoch in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(sorted_rows(epoch), sorted_rows(X))
    places = [[int(np.flatnonzero((row == X).all(1))[0]) for row in epoch] for epoch in epochs]
    assert len({tuple(order) for order in places}) == 3
    near = np.mean(np.abs(np.diff(places[0])) == 1)
    assert near < 0.02  # rows that lie together are drawn apart
    assert np.ptp(places[0][:250]) > 600  # and a block is drawn from all over the matrix


@pytest.mark.parametrize("start", [0, 250, 990, 2500])
def test_the_order_is_a_function_of_seed_epoch_and_position(reader, start):
    through = np.concatenate([rows_of(reader, at, 50) for at in range(0, 2600, 50)])
    again = ReadAhead(stream_of())
    np.testing.assert_array_equal(rows_of(again, start, 100), through[start : start + 100])
    np.testing.assert_array_equal(rows_of(reader, start, 100), through[start : start + 100])  # back again
    other = ReadAhead(stream_of(seed=1))
    assert not np.array_equal(rows_of(other, 0, 100), through[:100])
    for reader in (again, other):
        reader.close()


def test_only_the_blocks_in_use_are_held(reader):
    for at in range(0, 5000, 64):
        rows_of(reader, at, 64)
        assert len(reader._held) <= 2


def test_what_lies_before_a_position_is_not_read(monkeypatch):
    class Counted:
        shape, dtype, n_read = X.shape, X.dtype, 0

        def __getitem__(self, rows):
            Counted.n_read += rows.stop - rows.start
            return X[rows]

    reader = ReadAhead(stream_of(Counted()))
    rows = rows_of(reader, 7_300, 50)
    reader.close()
    through = ReadAhead(stream_of())
    np.testing.assert_array_equal(rows, [rows_of(through, at, 50) for at in range(0, 7_350, 50)][-1])
    through.close()
    assert Counted.n_read <= 5 * 256  # the first blocks, and those from there on


def test_the_next_block_is_read_while_the_present_one_is_used():
    read, second = [], threading.Event()

    class Watched(Stream):
        seed, info, n_rows = 0, {}, None

        def blocks(self, epoch, is_closed):
            for number in range(3):
                read.append((epoch, number))
                if len(read) == 2:
                    second.set()
                yield 100, lambda: X[:100]

    reader = ReadAhead(Watched())
    rows_of(reader, 0, 10)
    assert second.wait(100)
    assert read == [(0, 0), (0, 1)]  # the next, and no more
    reader.close()


def test_closing_ends_the_thread_soon():
    class Endless(Stream):
        seed, info, n_rows = 0, {}, None

        def blocks(self, epoch, is_closed):
            if epoch or is_closed():
                while not is_closed():
                    time.sleep(0.001)
                return
            yield 100, lambda: X[:100]

    reader = ReadAhead(Endless())
    reader.close()
    assert not any("read-ahead" in thread.name for thread in threading.enumerate())


def sae_of(R=None, **options):
    usual = {"n_steps": 30, "batch_size": 64, "random_state": 0}
    return ProxSAE(R or Cardinality(3), 24, **{**usual, **options})


def test_a_fit_follows_the_order_of_the_stream_whatever_its_own_seed():
    one, again = sae_of().fit(stream_of()), sae_of().fit(stream_of())
    other = sae_of(random_state=1).fit(stream_of())
    np.testing.assert_array_equal(one.components_, again.components_)
    assert not np.array_equal(one.components_, other.components_)
    assert one.score(X) == pytest.approx(sae_of().fit(X).score(X), abs=0.03)
    waiting = one.history_["waiting"]
    assert waiting.shape == (30,)
    assert ((waiting >= 0) & (waiting < 1)).all()


def test_a_batch_is_the_rows_of_the_stream(monkeypatch):
    from proxsae.training.trainer import Trainer

    step, seen = Trainer.step, []

    def watched(self, x, *rest):
        seen.append(self.state.inputs.scale * x + self.state.inputs.mean)
        return step(self, x, *rest)

    monkeypatch.setattr(Trainer, "step", watched)
    sae_of(n_steps=20).fit(stream_of())
    with_reader = ReadAhead(stream_of())
    np.testing.assert_allclose(torch.cat(seen), rows_of(with_reader, 0, 20 * 64), atol=1e-5)
    with_reader.close()


def test_many_over_one_stream_are_each_as_alone():
    def saes():
        return [sae_of(), sae_of(random_state=1, batch_size=50), sae_of(L1(), target_l0=3, n_steps=12)]

    for sae, alone in zip(fit_many(saes(), stream_of()), saes(), strict=True):
        alone.fit(stream_of())
        np.testing.assert_array_equal(sae.components_, alone.components_)
        np.testing.assert_array_equal(sae.history_["loss"], alone.history_["loss"])


def test_a_resumed_fit_goes_on_in_the_stream(tmp_path, monkeypatch):
    from proxsae.training.batches import StreamBatches

    after = StreamBatches.after

    def killed(self, n_drawn):
        if n_drawn == 21 * 64:
            raise KeyboardInterrupt
        return after(self, n_drawn)

    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 8}
    with monkeypatch.context() as patch:
        patch.setattr(StreamBatches, "after", killed)
        with pytest.raises(KeyboardInterrupt):
            sae_of(**options).fit(stream_of())
    for other in ({"seed": 1}, {"buffer_rows": 320}):
        with pytest.raises(
            ValueError, match="the checkpoint of another fit: its stream = n_rows 1000, buffer_rows 300"
        ):
            sae_of(**options).fit(stream_of(**other), resume=True)
    resumed, through = sae_of(**options).fit(stream_of(), resume=True), sae_of().fit(stream_of())
    np.testing.assert_array_equal(resumed.components_, through.components_)
    np.testing.assert_array_equal(resumed.history_["loss"], through.history_["loss"])
    assert len(resumed.history_["waiting"]) == 30


def test_all_that_a_store_says_is_part_of_the_definition():
    """As in the checkpoints of every version; an activation stream leaves out what it measures."""

    class Store(np.ndarray):
        info: ClassVar = {"site": "block.1", "median_norm": 2.5}

    checksum = zlib.crc32(b'{"median_norm": 2.5, "site": "block.1"}')
    expected = f"n_rows 1000, buffer_rows 300, seed 0, provenance with checksum {checksum:08x}"
    assert stream_of(X.view(Store)).definition == expected


def test_one_pass_over_a_stream():
    sae = sae_of().fit(X).partial_fit(stream_of())
    assert sae.n_iter_ == 30 + 16
    assert np.isnan(sae.history_["waiting"][:30]).all()
    assert np.isfinite(sae.history_["waiting"][30:]).all()


def test_what_is_larger_than_the_memory_is_read_as_a_stream(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    small = sae_of().fit(mapped)
    np.testing.assert_array_equal(small.components_, sae_of().fit(X).components_)
    monkeypatch.setattr("proxsae.training.batches.physical_memory", lambda: X.nbytes - 1)
    large = sae_of().fit(mapped)
    np.testing.assert_array_equal(large.components_, sae_of().fit(ShuffledRows(mapped)).components_)
    assert "waiting" in large.history_
    assert "waiting" not in sae_of().fit(X).history_  # in memory already


def test_nan_names_the_row_and_ends_the_thread():
    bad = X.copy()
    bad[700, 3] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity: row \d+ drawn from ShuffledRows\(ndarray of 1000 rows"):
        sae_of().fit(stream_of(bad))
    assert not any("read-ahead" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_are_read_as_from_an_array(dtype):
    sae = sae_of().fit(stream_of(X.astype(dtype)))
    assert sae.components_.dtype == (np.float64 if dtype is np.float64 else np.float32)


def test_bad_arguments_are_one_sentence():
    for options, sentence in (
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"buffer_rows": 0}, "buffer_rows must be an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            stream_of(**options)
    with pytest.raises(ValueError, match="max_norm_ratio looks at all rows"):
        sae_of(max_norm_ratio=5.0).fit(stream_of())
    with pytest.raises(TypeError, match="X must be a matrix of shape"):
        sae_of().fit(X).transform(stream_of())
