"""One regularizer for each block of coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, Self

import array_api_compat

from proxsae.formulas.arrays import Array, ArrayNamespace
from proxsae.formulas.integers import is_count
from proxsae.regularizers.base import Regularizer
from proxsae.regularizers.nonseparable import NonSeparable
from proxsae.regularizers.traits import Scope, of_parts


class Blocks(NonSeparable):
    r"""The sum :math:`R_1(z_{(1)}) + R_2(z_{(2)}) + \dots` over consecutive blocks of coordinates.

    The prox is taken block by block. ``Blocks([(Simplex(), 4), (0.1 * L1(), 12)])`` is for codes of 16 components.

    Parameters
    ----------
    blocks : sequence of (Regularizer, int)
        Each regularizer with the width of its block; none at batch scope.
    """

    blocks: Sequence[tuple[Regularizer, int]]

    prox_latex = r"\mathrm{prox}_{tR}(u) = (\mathrm{prox}_{tR_1}(u_{(1)}), \mathrm{prox}_{tR_2}(u_{(2)}), \dots)"
    is_indicator = of_parts("is_indicator")
    is_convex = of_parts("is_convex")
    is_nonnegative = of_parts("is_nonnegative")
    is_scale_free = of_parts("is_scale_free")
    has_conjugate = of_parts("has_conjugate")
    has_conjugate_with_ridge = of_parts("has_conjugate_with_ridge")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.blocks if isinstance(self.blocks, Iterable) else [self.blocks]
        blocks = tuple(_as_block(block) for block in given)
        for R, width in blocks:
            R.check_width(width)
        object.__setattr__(self, "blocks", blocks)

    def map_parameters(self, function: Callable[[str, Any], Any]) -> Self:
        copy = super().map_parameters(function)
        blocks = [(R.map_parameters(function), width) for R, width in self.blocks]
        object.__setattr__(copy, "blocks", tuple(blocks))
        return copy

    def made_of(self) -> list[Regularizer]:
        return [R for R, _ in self.blocks]

    @property
    def scope(self) -> Scope:
        """The scope: "group" if no block is a function of the whole block."""
        return "sample" if any(R.scope == "sample" for R, _ in self.blocks) else "group"

    @property
    def value_latex(self) -> str:
        blocks = enumerate(self.made_of(), start=1)
        return " + ".join(rf"\left[{R.printed_value()}\right]_{{z_{{({i})}}}}" for i, R in blocks)

    def _slices(self) -> Iterator[tuple[Regularizer, slice]]:
        start = 0
        for R, width in self.blocks:
            yield R, slice(start, start + width)
            start += width

    def value_of(self, xp: ArrayNamespace, Z: Array) -> Array:
        return sum(R.value_on(xp, Z[..., part]) for R, part in self._slices())

    def prox_of(self, xp: ArrayNamespace, U: Array, t: Array) -> Array:
        parts = [R.prox_on(xp, U[..., part], t) for R, part in self._slices()]
        return array_api_compat.array_namespace(U).concat(parts, axis=-1)

    def conjugate_on(self, xp: ArrayNamespace, V: Array, ridge: Any = 0.0) -> Array:
        return sum(R.conjugate_on(xp, V[..., part], ridge) for R, part in self._slices())

    def gauge_on(self, xp: ArrayNamespace, V: Array) -> Array:
        return reduce(xp.maximum, [R.gauge_on(xp, V[..., part]) for R, part in self._slices()])

    def scaled(self, weight: Any) -> Blocks:
        return Blocks([(R.scaled(weight), width) for R, width in self.blocks])

    def in_units(self, scale: float) -> Blocks:
        return Blocks([(R.rescaled(scale), width) for R, width in self.blocks])

    @property
    def width(self) -> int | None:
        return sum(width for _, width in self.blocks)

    def check_width(self, n_components: int) -> None:
        if self.width != n_components:
            raise ValueError(f"Blocks: the widths add up to {self.width} and the codes have {n_components} components")


def _as_block(block: Any) -> tuple[Regularizer, int]:
    """Return a regularizer and its width, or raise ValueError."""
    if isinstance(block, tuple | list) and len(block) == 2:
        R, width = block
        if isinstance(R, Regularizer) and R.scope != "batch" and is_count(width):
            return R, int(width)
    raise ValueError(
        "Blocks takes pairs of a regularizer, not at batch scope, and the width of its block, as in "
        f"Blocks([(L1(), 4), (Simplex(), 12)]); got {block!r}"
    )
