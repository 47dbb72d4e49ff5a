"""Run the benchmark: every method on every axis, in both directions, along a path of strengths."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from proxsae.llm.concepts import Axis, read_axes
from proxsae.llm.massive import MASSIVE_RATIO
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site
from proxsae.llm.steer_bench.axis_contexts import AxisContexts, Neutral, Passage, read_neutral, read_sides, steered_odds
from proxsae.llm.steer_bench.choice import (
    Push,
    mean_difference,
    one_atom,
    pair_of_atoms,
    random_atom,
    random_direction,
)
from proxsae.llm.steering import code_changes, site_of
from proxsae.llm.text import TextSource
from proxsae.metrics import codes_of

STRENGTHS = (0.125, 0.25, 0.5, 1.0)
SEPARATED = 0.75  # share of the templates that must tell the sides apart in the clean model

Row = dict[str, Any]


@dataclass
class _Method:
    """An autoencoder of one seed, with the codes of the contexts to steer; bare directions have no autoencoder."""

    name: str
    seed: int
    sae: Any = None
    codes: dict[str, Any] = field(default_factory=dict)  # codes by the name of the passage

    def codes_of(self, name: str, passage: Passage) -> Any:
        if name not in self.codes:
            self.codes[name] = codes_of(self.sae, passage.edited_rows)
        return self.codes[name]


def steer_bench(
    model: LanguageModel,
    saes: Mapping[str, Sequence[Any]],
    *,
    axes: Sequence[Axis] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    most_damage: float = 0.3,
    text: TextSource = None,
    neutral_tokens: int = 512,
    block: Site | int | str | None = None,
    seed: int = 0,
    check_provenance: bool = True,
    verbose: bool | int = True,
    each_axis: Callable[[dict[str, Any]], None] | None = None,
    done: dict[str, Any] | None = None,
) -> dict[str, Any]:
    r"""Steer concept axes by atoms of sparse autoencoders and by directions, and measure shift against damage.

    Each axis is a set of pairs of contexts. One half of the pairs, drawn by the seed, chooses the direction; on the
    other half the activations are pushed towards side a in the contexts of side b, and the other way round. The
    **shift** is the change of log p(targets of a) - log p(targets of b) in the direction of the push, in nats. The
    **damage** of the same push is KL(p_clean || p_steered), in nats a token, and the rise of the cross-entropy, on
    neutral held-out text.

    A push of strength s moves every token by s times the median norm of the activations: a direction is added, the
    code of an atom is clamped to the value of that length, to the negative of it for the other direction, see
    :func:`proxsae.llm.steered`.

    Methods besides the autoencoders are ``"difference of means"`` of the activations at the last token (the supervised
    reference, since it needs labels), ``"random direction"``, and a random atom of each autoencoder. Each autoencoder
    has the variants ``"one atom"``, which serves both directions, and ``"pair"``, with an atom for each direction; see
    :mod:`proxsae.llm.steer_bench.choice`.

    Parameters
    ----------
    model : LanguageModel
    saes : dict of str to sequence
        Name of a method to autoencoders of different seeds, all of one site. The i-th autoencoders of all methods share
        the halves of the templates.
    axes : sequence of Axis, optional
        None: those of the package. An axis is left out, and listed, where the clean model tells its sides apart on less
        than three quarters of the templates.
    strengths : sequence of float
        Increasing, in median norms.
    most_damage : float, default=0.3
        A path ends at the first strength whose KL is above it, in nats a token.
    text, neutral_tokens
        The neutral text; None is the embedded Wikipedia.
    block, check_provenance
        As in :func:`proxsae.llm.steered`.
    seed : int, default=0
        Seed of the halves and of the random methods.
    verbose : bool or int, default=True
    each_axis : callable, optional
        Called with the results so far after every axis.
    done : dict, optional
        Results of a call with the same arguments that did not end: its axes are not run again.

    Returns
    -------
    dict
        ``rows``: one dict for each axis, method, variant, seed, direction and strength, with ``kl``, ``cross_entropy``
        and ``shifts``, one a template; ``axes``: one dict for each axis, with ``kept``; ``site``, ``median_norm``.

    Raises
    ------
    ValueError
        If there is no autoencoder, or one does not fit the model.
    """
    site = _common_site(model, saes, block, check_provenance)
    strengths = [float(strength) for strength in strengths]
    if not strengths or strengths != sorted(strengths) or strengths[0] <= 0:
        raise ValueError(f"strengths must be positive and increasing, got {strengths}")
    neutral = read_neutral(model, site, text, neutral_tokens)
    methods = [_Method(name, i, sae) for name, several in saes.items() for i, sae in enumerate(several)]
    bare = [_Method("", i) for i in range(max(map(len, saes.values())))]
    results: dict[str, Any] = {"site": str(site), "median_norm": neutral.median_norm}
    results |= {name: list(done[name]) if done else [] for name in ("axes", "rows")}
    path = _Path(model, site, neutral, strengths, most_damage)
    known = {told["axis"] for told in results["axes"]}
    chosen = [axis for axis in (read_axes() if axes is None else axes) if axis.name not in known]
    for axis in tqdm(chosen, unit="axis", desc="steer-bench", disable=None if verbose else True):
        sides = read_sides(model, site, axis, MASSIVE_RATIO * neutral.median_norm)
        separated = float((sides.gap > 0).mean())
        told = {"axis": axis.name, "a": axis.a, "b": axis.b, "templates": sides.n_templates, "separated": separated}
        told |= {"gap": float(sides.gap.mean()), "kept": separated >= SEPARATED, "multi_token": sides.multi_token}
        results["axes"].append(told)
        if told["kept"]:
            for method in [*bare, *methods]:
                of_axis = zlib.crc32(axis.name.encode())  # the same halves whatever other axes there are
                half = np.random.default_rng([seed, of_axis, method.seed]).permutation(sides.n_templates)
                train, test = half[: len(half) // 2], half[len(half) // 2 :]
                results["rows"] += _of_method(path, method, sides, train, test, seed)
        if each_axis:
            each_axis(results)
    return results


def _common_site(model: LanguageModel, saes: Mapping[str, Sequence[Any]], block: Any, check_provenance: bool) -> Site:
    if not saes or not all(saes.values()):
        raise ValueError("give at least one sparse autoencoder for each name")
    found = {
        site_of(model, sae, block, check_provenance=check_provenance) for several in saes.values() for sae in several
    }
    if len(found) > 1:
        raise ValueError(f"the autoencoders are of different sites: {', '.join(sorted(map(str, found)))}")
    return found.pop()


def _of_method(
    path: _Path, method: _Method, sides: AxisContexts, train: NDArray[np.int64], test: NDArray[np.int64], seed: int
) -> Iterator[Row]:
    """Yield the rows of a method on an axis: both directions of each variant."""
    n = sides.n_templates
    for name, variant, (to_a, to_b) in _pushes(path, method, sides, train, seed):
        for direction, push, contexts in (("a", to_a, test + n), ("b", to_b, test)):
            told = {"axis": sides.axis.name, "method": name, "variant": variant, "seed": method.seed}
            told |= {"direction": direction, "atom": push.atom, "gap": float(sides.gap[test].mean())}
            for found in path.of(method, sides, contexts, push, 1 if direction == "a" else -1):
                yield told | found


def _pushes(
    path: _Path, method: _Method, sides: AxisContexts, train: NDArray[np.int64], seed: int
) -> Iterator[tuple[str, str, tuple[Push, Push]]]:
    n, last = sides.n_templates, sides.last_rows
    random = np.random.default_rng([seed, method.seed])  # the same for every axis, so that damage is measured once
    if method.sae is None:
        push = mean_difference(last[train], last[train + n])
        yield "difference of means", "direction", (push, push)
        push = random_direction(last.shape[1], random)
        yield "random direction", "direction", (push, push)
        return
    D = np.asarray(method.sae.components_, np.float32)
    slope = sides.slopes[np.concatenate([train, train + n])].mean(axis=0)
    z_a, z_b = codes_of(method.sae, last[train]), codes_of(method.sae, last[train + n])
    push = one_atom(z_a, z_b, D, slope)
    yield method.name, "one atom", (push, push)
    yield method.name, "pair", pair_of_atoms(z_a, z_b, D, slope)
    push = random_atom(method.codes_of("neutral", path.neutral.passage), D, random)
    yield method.name, "random atom", (push, push)


class _Path:
    """Measures a push along the strengths, and remembers the damage of pushes that were measured."""

    def __init__(
        self, model: LanguageModel, site: Site, neutral: Neutral, strengths: Sequence[float], most_damage: float
    ) -> None:
        self.model, self.site, self.neutral, self.strengths = model, site, neutral, strengths
        self.most_damage = most_damage
        self._damage: dict[tuple[bytes, float, int], tuple[float, float]] = {}

    def of(
        self, method: _Method, sides: AxisContexts, contexts: NDArray[np.int64], push: Push, towards: int
    ) -> Iterator[Row]:
        """Yield strength, damage and shifts of the contexts, up to the first damage above `most_damage`."""
        rows = torch.from_numpy(contexts)
        whole = sides.passage
        passage = Passage(whole.tokens[rows], whole.rows[rows], whole.edited[rows])
        name = f"{sides.axis.name} {towards}"
        for strength in self.strengths:
            value = push.sign * towards * strength * self.neutral.median_norm / float(np.linalg.norm(push.vector))
            key = push.vector.tobytes(), value, id(method) if push.atom is not None else 0
            if key not in self._damage:
                change = _change(method, "neutral", self.neutral.passage, push, value)
                self._damage[key] = self.neutral.damage(self.model, self.site, change)
            kl, cross_entropy = self._damage[key]
            change = _change(method, name, passage, push, value)
            odds = steered_odds(self.model, self.site, passage, sides.last[rows], sides.targets, change)
            yield {
                "strength": strength,
                "kl": kl,
                "cross_entropy": cross_entropy,
                "shifts": (towards * (odds - sides.odds[contexts])).tolist(),
            }
            if kl > self.most_damage:
                return


def _change(method: _Method, name: str, passage: Passage, push: Push, value: float) -> NDArray[np.float32]:
    """Return the change to add to the rows that are edited."""
    n_rows = int(passage.edited.sum())
    if push.atom is None:
        return np.tile(np.float32(value) * push.vector, (n_rows, 1))
    codes = method.codes_of(name, passage)
    clamped = code_changes(codes, [push.atom], np.array([value], np.float32), "clamp")
    change: NDArray[np.float32] = clamped @ push.vector[None]
    return change
