"""Texts of strangers: a regularizer or one sentence, in bounded time and memory, and nothing is evaluated."""

import numpy as np
import pytest
from hostile import answered
from hypothesis import given
from hypothesis import strategies as st
from zoo import JOINT, SEPARABLE, SUMS, TRANSCENDENTAL

from proxsae.regularizers import Regularizer, parse
from proxsae.regularizers.base import CLASSES

NAMES = st.sampled_from(sorted([*CLASSES, "Translated", "Rescaled", "w", "np", "Mine", "__import__"]))
NUMBERS = st.one_of(st.integers(-3, 10**20), st.floats(0, 1e6)).map(repr)
ATOMS = st.one_of(
    NAMES, NAMES, NUMBERS, st.sampled_from(["'sample'", '"batch"', "[1, 2]", "inf", "nan", "1e999", "''"])
)


def _terms(inner):
    arguments = st.lists(st.one_of(inner, inner.map(lambda text: f"k={text}")), max_size=3).map(", ".join)
    return st.one_of(
        st.tuples(NAMES, arguments).map(lambda pair: f"{pair[0]}({pair[1]})"),
        st.tuples(inner, st.sampled_from(["+", "*", "-", "/", ",", " "]), inner).map(" ".join),
        arguments.map(lambda text: f"[{text}]"),
        inner.map(lambda text: f"({text})"),
    )


SPELLED = [R.spelled({}) for R in [*SEPARABLE, *TRANSCENDENTAL, *SUMS, *JOINT]]


def _cut(pair):
    text, at, stuffed = pair
    at %= len(text)
    return text[:at] + stuffed + text[at + 1 :]


TEXTS = st.one_of(
    st.text(max_size=40),
    st.text("[]()+*-,.'\"=0123456789eEL1 \n", max_size=60),
    st.recursive(ATOMS, _terms, max_leaves=8),
    st.tuples(st.sampled_from(SPELLED), st.integers(0, 200), st.text(max_size=3)).map(_cut),
)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")
@given(TEXTS)
def test_any_text_is_a_regularizer_or_a_sentence(text):
    R, refusal = answered(lambda: parse(text, w=np.ones(3)), ValueError)
    if refusal:
        return
    assert isinstance(R, Regularizer)
    arrays = {}
    assert parse(R.spelled(arrays), **arrays) == R
    width = R.width or 3
    if width < 1000:
        Z, _ = answered(lambda: R.prox(np.ones((1, width))), ValueError)  # groups may fit other widths
        assert Z is None or Z.shape == (1, width)


@pytest.mark.parametrize(
    "text",
    [
        "[0]*300000000*L1",
        "'ab'*100000*100000*L1",
        "[0]*300000000",
        "L1*" * 30_000 + "L1",
        "+".join(["L1"] * 30_000),
        "+".join(f"Huber({i}.5)" for i in range(1, 60_000)),
        "TreeGroups([" + "[0]," * 20_000 + "])",
        "(" * 5_000 + "L1" + ")" * 5_000,
        "[" * 100_000,
        "Translated(" * 3_000 + "L1" + ", 1)" * 3_000,
        "L1*L1",
        "5+L1",
        "L1+5",
        "9" * 5_000 + "*L1",
        "Cardinality(" + "9" * 5_000 + ")",
        "GroupL2(999999999999)",
        "Box(1e999, 1)",
        "FromCvxpy('x')",
        "Numeric('x')",
        "Numeric(abs)",
        "x" * 2_000_000,
        "L1()()",
        "'L1'",
        "",
    ],
    ids=lambda text: text[:20],
)
def test_hostile_texts_are_refused_at_once(text):
    R, refusal = answered(lambda: parse(text), ValueError)
    assert refusal or isinstance(R, Regularizer)
