"""The report: the atoms it picks, the contexts it shows, and a page that needs nothing else."""

import re

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from proxsae.dictionary.antonyms import PairCode
from proxsae.report import Section, feature_cards, table_row, write_sections
from proxsae.report.features import clearest_atoms, clearness
from proxsae.report.figures import curves_with_ranges, training_curves
from proxsae.report.opposites import pairs_summary


class Store:
    """100 contexts of 12 tokens, of which position 0 has no row, as a harvest leaves them."""

    def __len__(self):
        return 1100

    def trace(self, rows):
        rows = np.asarray(rows)
        return rows // 11, rows % 11 + 1

    def tokens(self, context):
        return np.arange(12) + 12 * context


@pytest.fixture
def codes():
    rng = np.random.default_rng(0)
    Z = np.zeros((1100, 4))
    both = rng.choice(1100, 60, replace=False)
    Z[both[:30], 0], Z[both[30:], 0] = rng.uniform(1, 2, 30), -rng.uniform(1, 2, 30)  # two clear sides
    Z[both[:30], 1], Z[both[30:32], 1] = 9.0, -9.0  # hardly any negative side
    Z[:, 2] = rng.normal(size=1100) * 10  # always on
    Z[both, 3] = rng.choice([-0.1, 0.1], 60)  # two weak sides
    return csr_matrix(Z)


def test_the_clearest_atoms_are_strong_on_both_sides(codes, monkeypatch):
    monkeypatch.setattr("proxsae.report.features.MAX_DENSITY", 0.1)
    assert clearest_atoms(codes.tocsc(), 4).tolist() == [0, 3]
    assert clearest_atoms(abs(codes).tocsc(), 4).tolist() == [1, 0, 3]


def test_atoms_that_never_fire_are_the_least_clear():
    Z = np.zeros((1100, 3))
    Z[:30, 1], Z[:, 2] = 1.0, 1.0
    assert clearness(csr_matrix(Z).tocsc()).tolist() == [-1, 0, 0]  # dead, dense, dense
    assert clearest_atoms(csr_matrix(Z).tocsc(), 3).tolist() == []


def test_cards_show_the_extremes_of_each_side_in_their_context(codes):
    card = feature_cards(codes, Store(), lambda t: f"<{t}>", n_features=1, n_contexts=3, window=4)
    assert card == []  # at most 2 % of the tokens: none here
    dense = np.zeros((1100, 1))
    dense[[5, 6, 300, 700], 0] = [3.0, 2.5, 2.0, -1.0]
    dense[800:820, 0] = 0.1
    dense[900:919, 0] = -0.1
    cards = feature_cards(csr_matrix(dense / 1.0), Store(), str, n_features=1, n_contexts=3, window=4)
    assert cards == []  # 43 of 1100 is too dense as well
    wide = csr_matrix(np.vstack([dense, np.zeros((1100, 1))]))
    (card,) = feature_cards(wide, Store(), str, n_features=1, n_contexts=3, window=4)
    assert (card.atom, card.n_positive, card.n_negative) == (0, 23, 20)
    assert card.density == 43 / 2200
    first = card.positive[0]
    active = [token for token in first if token.is_active]
    assert [(t.text, t.activation) for t in active] == [("6", 3.0)]  # row 5 is context 0, position 6
    assert [t.text for t in first] == [str(p) for p in range(2, 11)]
    assert next(t for t in first if t.text == "7").activation == 2.5
    contexts = [next(t.text for t in tokens if t.is_active) for tokens in card.positive]
    assert len({int(token) // 12 for token in contexts}) == 3  # one example a context
    assert next(t.activation for t in card.negative[0] if t.is_active) == -1.0


def test_the_page_is_one_file_and_escapes_its_texts(codes, tmp_path):
    steps = np.arange(1, 6)
    history = {"step": steps, "fvu": 1 / steps, "l0": 3.0 * steps, "dead": 0 * steps}
    wide = csr_matrix(np.vstack([codes.toarray(), np.zeros((4000, 4))]))
    cards = feature_cards(wide, Store(), lambda t: f"<b>{t}</b>")
    assert cards
    out = tmp_path / "deep" / "report.html"
    sections = [
        Section("Results", table=[{"": "TopK", "FVU": "0.2"}]),
        Section("Training", figure=training_curves({"TopK": history})),
        Section("Features", cards=cards),
    ]
    write_sections(out, title="A & B", facts={"Model": "tiny"}, sections=sections)
    html = out.read_text(encoding="utf-8")
    assert "A &amp; B" in html
    assert "&lt;b&gt;" in html
    assert "<b>6</b>" not in html
    assert html.count("<svg") == 1 + len(cards)
    assert not re.search(r'(src|href)="?https?:', html)
    assert list(out.parent.iterdir()) == [out]


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("proxsae.data.files.os.fsync", full)
    with pytest.raises(OSError, match=r"report\.html' cannot be written: No space left on device"):
        write_sections(tmp_path / "report.html", title="A", facts={}, sections=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("needed", "said"), [((1, 3, None), "3"), ((2, None, None), "not reached")])
def test_what_pairs_do_not_reach_is_said(needed, said):
    codes = [PairCode(None, 0, np.array([0.1, 0.2]), n_half) for n_half in needed]
    assert pairs_summary(codes)["atoms for half of it"] == said


@pytest.mark.parametrize("n", [5, 12, 24])
def test_every_line_has_a_look_of_its_own_and_a_place_in_the_legend(n):
    names = [f"batchabstopk {1024 + number}, token-standardised, no AuxK" for number in range(n)]
    ranges = {"a": ([8, 16],) * 4, "b": ([8, 16],) * 4, "c": ([8, 16],) * 4}
    figure = curves_with_ranges(dict.fromkeys(names, ranges), {"a": "A", "b": "B", "c": "C"}, "L0")
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert len({(line.get_color(), line.get_marker()) for line in axis.lines}) == n
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    drawn, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= drawn.x0 < drawn.x1 <= whole.x1
    assert figure.axes[0].get_window_extent().height > 100  # the legend leaves room


def test_small_errors_keep_their_digits():
    result = {"mse": 0.000678693, "fvu": 0.7, "l0": 8.0, "dead_fraction": 0.0, "loss_recovered": 1.2, "kl": 0.00011134}
    row = table_row("a", result)
    assert (row["MSE"], row["KL"]) == ("0.00067869", "0.000111")
    large = table_row("b", result | {"mse": 33021.0, "kl": 0.6081})
    assert (large["MSE"], large["KL"]) == ("33021", "0.608")
    larger = table_row("c", result | {"mse": 123456.7, "kl": 1234.5})
    assert (larger["MSE"], larger["KL"]) == ("123457", "1234")
