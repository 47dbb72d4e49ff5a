"""Files of strangers: every reader is fed damaged and hostile files, and says one sentence that names the file."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsae.formats import load
from proxsae.formats.registry import formats

FILES = Path(__file__).parent / "files"
OF_FORMAT = {name: sorted(FILES.glob(f"{name}_*/recorded.json")) for name in formats()}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def damaged(data, content):
    """Bytes with a few changed, lost or added."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        what = data.draw(st.sampled_from(["change", "cut", "insert", "remove"]))
        if what == "change" and content:
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del content[at:]
        elif what == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del content[at : at + data.draw(st.integers(1, 9))]
    return bytes(content)


def edited(data, content):
    """JSON with a value replaced or removed, at any depth."""
    values = json.loads(content)
    inside = values
    while True:
        name = data.draw(st.sampled_from(sorted(inside)))
        if isinstance(inside[name], dict) and inside[name] and data.draw(st.booleans()):
            inside = inside[name]
            continue
        break
    if data.draw(st.booleans()):
        inside[name] = data.draw(JSON)
    else:
        del inside[name]
    return json.dumps(values).encode()


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(OF_FORMAT))
@given(data=st.data())
def test_a_damaged_file_is_one_sentence_or_a_model(name, tmp_path_factory, data):
    recorded = data.draw(st.sampled_from(OF_FORMAT[name]))
    folder = tmp_path_factory.getbasetemp() / f"fuzzed-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(recorded.parent, folder)
    (folder / "recorded.json").unlink()
    path = folder / json.loads(recorded.read_text())["path"]
    file = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    content = file.read_bytes()
    is_json = file.suffix == ".json" and data.draw(st.booleans())
    file.write_bytes(edited(data, content) if is_json else damaged(data, content))
    try:
        sae, refusal = load(path, format=data.draw(st.sampled_from([name, "auto"]))), ""
    except (ValueError, OSError) as error:
        sae, refusal = None, str(error)
    if sae is None:
        assert f"fuzzed-{name}" in refusal
        assert "\n" not in refusal
        assert len(refusal) < 1000
        return
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        Z = sae.transform(np.ones((2, sae.n_features_in_), dtype="float32"))
    assert Z.shape == (2, len(sae.components_))


@pytest.mark.parametrize("name", sorted(OF_FORMAT))
def test_there_are_files_to_damage(name):
    assert OF_FORMAT[name]


@pytest.mark.parametrize("name", sorted(OF_FORMAT))
def test_an_empty_folder_and_an_empty_file_are_one_sentence(name, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
        load(tmp_path, format=name)
    (tmp_path / "empty").touch()
    with pytest.raises((ValueError, FileNotFoundError), match="empty"):
        load(tmp_path / "empty", format=name)
