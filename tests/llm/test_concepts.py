"""The axes of the package, and files of axes that are wrong."""

import json

import pytest
from llm_models import tiny_model

from proxsae.llm.concepts import Axis, read_axes, target_ids

GOOD = {"a": "x", "b": "y", "targets_a": [" w1"], "targets_b": [" w2"]}
TEMPLATES = [f"w{i} {{w20|w21}}" for i in range(4)]


def test_the_package_has_axes_of_many_templates():
    axes = read_axes()
    assert len(axes) >= 8
    for axis in axes:
        assert len(axis.templates) >= 50
        assert len({context for pair in axis.templates for context in pair}) == 2 * len(axis.templates)
        assert all(a != b and not set("{|}") & set(a + b) and a.strip() == a for a, b in axis.templates)
        assert not set(axis.targets_a) & set(axis.targets_b)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"templates": ["no pair", *TEMPLATES]}, "'no pair' must hold one pair such as"),
        ({"templates": ["{a|b} {c|d}", *TEMPLATES]}, "must hold one pair"),
        ({"templates": [*TEMPLATES, TEMPLATES[0]]}, "no context may occur twice"),
        ({"templates": TEMPLATES[:3]}, "at least 4 templates"),
        ({"targets_a": []}, "targets of its own"),
        ({"targets_a": [" w2"]}, "targets of its own"),
        ({}, "the field 'templates' is missing"),
    ],
)
def test_wrong_files(tmp_path, changes, sentence):
    held = GOOD | ({"templates": TEMPLATES} if changes else {}) | changes
    (tmp_path / "axis.json").write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"axis\.json: .*" + sentence):
        read_axes(tmp_path)


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(ValueError, match="holds no axis"):
        read_axes(tmp_path)
    (tmp_path / "axis.json").write_text("{")
    with pytest.raises(ValueError, match=r"axis\.json"):
        read_axes(tmp_path)


def test_a_word_of_several_tokens_is_stood_for_by_its_first():
    model = tiny_model()
    axis = Axis("x", "a", "b", (), (" w1 w2", " w3"), (" w4",))
    a, b, several = target_ids(model, axis)
    assert (a, b) == ([4, 6], [7])
    assert several == [" w1 w2"]
    with pytest.raises(ValueError, match="' w1', ' w1 w2' begin with the same token"):
        target_ids(model, Axis("x", "a", "b", (), (" w1",), (" w1 w2",)))
