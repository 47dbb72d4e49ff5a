"""A tree of groups is proved as it is given: the levels of the shipped code, in the order in which they run."""

from __future__ import annotations

import pytest

from proxsae.regularizers import TreeGroups, parse, tree
from proxsae.verification import prove, verify


class RootFirst(TreeGroups):
    def _levels(self, n_components):
        return super()._levels(n_components)[::-1]


class TwiceTheSum(TreeGroups):
    def value_of(self, xp, Z):
        return 2.0 * super().value_of(xp, Z)


class RootFirstFarOut(TreeGroups):
    """For large codes only, which a search does not look at."""

    def prox_of(self, xp, U, t):
        levels = self._levels(U.shape[-1])
        for level in levels[::-1] if (U > 1e9).all() else levels:
            U = level.prox_of(xp, U, t)
        return U


@pytest.mark.parametrize("kind", [RootFirst, TwiceTheSum])
def test_wrong_code_is_refuted(kind):
    found = prove(kind([[0], [0, 1]])).counterexample
    assert found["better objective"] < found["claimed objective"]


@pytest.mark.parametrize("groups", [[], [[3]], [[2, 0], [0], [1, 3]], [[0], [0], [0, 1, 2, 4], [0, 1]]], ids=repr)
def test_every_shape_of_tree_is_proved(groups):
    assert prove(0.3 * TreeGroups(groups)).verdict == "proved for this tree"


def test_the_tree_that_is_proved_is_the_given_one(monkeypatch):
    levels = tree._levels
    monkeypatch.setattr(tree, "_levels", lambda groups, *rest: levels(groups, *rest)[:: -1 if len(groups) > 2 else 1])
    assert prove(TreeGroups([[0], [0, 1]])).verdict == "proved for this tree"
    for text in ("TreeGroups([[0], [0, 1], [0, 1, 2]])", "L1 + TreeGroups([[0], [0, 1], [0, 1, 2]])"):
        found = prove(parse(text)).counterexample
        assert found["better objective"] < found["claimed objective"]
    assert not verify("TreeGroups([[0], [0, 1], [0, 1, 2]])", proof_timeout=0.0).passed


def test_every_branch_of_the_code_of_a_tree_is_read():
    assert prove(RootFirstFarOut([[0], [0, 1]])).verdict == "unknown"
