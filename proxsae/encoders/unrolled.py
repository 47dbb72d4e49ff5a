"""The unrolled encoder: a fixed number of proximal steps whose parameters are learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from proxsae.encoders.activation import Activated, Activation
from proxsae.encoders.base import Encoding, check_number, check_one_scale, check_tensors
from proxsae.encoders.codes import Codes
from proxsae.encoders.isometry import isometry_defect
from proxsae.encoders.kinds import KINDS, Past
from proxsae.encoders.pre_activation import PreActivation
from proxsae.encoders.thresholds import initial_thresholds, threshold_shape
from proxsae.formulas.integers import checked_count
from proxsae.kernels.sparse import Pattern
from proxsae.kernels.top_k import row_support
from proxsae.regularizers import L0, Regularizer
from proxsae.solvers.problem import default_step, lipschitz_constant
from proxsae.solvers.proximal_gradient import grown_momentum

SHARED = ("matrices", "all", "nothing")


class Unrolled(Activated):
    r"""z_0 = 0, z_{s+1} = prox_{t R}(u_s) with u_s from z_s, x - b, D and learned parameters; the code is z_T.

    Trained end to end with D and b, which it shares with the decoder. Before training, "ista" is
    ``solve(X, D, R, intercept=b, method="ista", max_iter=n_layers)``; with one layer it is an :class:`Amortized`.

    Parameters
    ----------
    n_layers : int, default 5
        T.
    kind : str, default "ista"
        How u_s follows from the codes z_s before it; each starts from t = `step`, and learns its numbers and matrices.

        - "ista": u = z + t (x - b - z D) D^T.
        - "lista": u = z S + (x - b) W^T with free matrices, from S = I - t D D^T and W = t D.
        - "lista-cp": u = z + (x - b - z D) W^T with a free matrix, from W = t D.
        - "alista": u = z + g (x - b - z D) W^T with the W of least coherence with D, from g = t.
        - "bregman": u_s = (1 - rho) u_{s-1} + rho z_s + t (x - b - z_s D) D^T, from rho = 0, which keeps all that the
          prox cut off; "lca": from rho = t and the step 1 of the prox.
    shared : {"matrices", "all", "nothing"}, default "matrices"
        Parameters that all layers share: matrices but not steps, all, or none.
    momentum : bool, default False
        Take the step from z_s + beta_s (z_s - z_{s-1}), beta_s learned, one a layer, from the momentum of FISTA.
    step : float, optional
        The step t before training; None: 1/L with L the largest eigenvalue of D D^T, 0.99/L where R is not convex.
        Under :class:`~proxsae.regularizers.Numeric`, whose prox has no gradient in t, it learns by u_s alone.
    isometry : float, default 0.0
        Weight of a penalty on the atoms, :func:`proxsae.encoders.isometry.isometry_defect` of the 2k atoms of largest
        pre-activation in each sample, k the mean number of non-zeros; in the units of the training, where rows have
        mean norm sqrt(n_features).
    bandwidth : float, default 0.5
        Width of the surrogate window around each learned threshold, in units of the codes.

    Attributes
    ----------
    layers : ParameterDict
        The parameters of the kind and ``momentum``, one row a layer or one row for all. After a training at batch
        scope also ``price``: the weight of L0 in R of each layer, or its mean over the atoms, relative to that of the
        last.
    threshold : Tensor of shape (n_components,) or None
        For an L0 regularizer: one learnable hard threshold an atom, of all layers.

    References
    ----------
    Gregor and LeCun (2010), Learning fast approximations of sparse coding, ICML.
    """

    name = "unrolled"
    is_tied = True
    n_layers: int
    kind: str
    shared: str
    momentum: bool
    step: float | None
    isometry: float
    layers: nn.ParameterDict
    atoms: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        n_layers: Any = 5,
        kind: str = "ista",
        *,
        shared: str = "matrices",
        momentum: bool = False,
        step: float | None = None,
        isometry: float = 0.0,
        bandwidth: float = 0.5,
    ) -> None:
        super().__init__()
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        if shared not in SHARED:
            raise ValueError(f"shared must be one of {', '.join(map(repr, SHARED))}, got {shared!r}")
        if not isinstance(momentum, bool):
            raise ValueError(f"momentum must be True or False, got {momentum!r}")
        if step is not None:
            check_number("step", step)
        check_number("isometry", isometry, may_be_zero=True)
        check_number("bandwidth", bandwidth)
        self.n_layers = checked_count("n_layers", n_layers)
        self.kind, self.shared, self.momentum, self.step = kind, shared, momentum, step
        self.isometry, self.bandwidth = isometry, bandwidth

    # --- made ------------------------------------------------------------------------------------------------------

    def initial(self, R: Regularizer, atoms: Tensor, *, learn_thresholds: bool) -> Self:
        """Return the encoder whose layers are proximal-gradient steps over D."""
        step = default_step(lipschitz_constant(atoms), R) if self.step is None else self.step
        layer = KINDS[self.kind]().initial(atoms, step)
        tensors = {name: value.expand(self._rows(value.shape), *value.shape) for name, value in layer.items()}
        if self.momentum:
            tensors["momentum"] = atoms.new_tensor(fista_momenta(self.n_layers))
        threshold = initial_thresholds(R, atoms) if learn_thresholds else None
        return self._of(R, tensors, threshold)

    def with_regularizer(self, R: Regularizer, *, learn_thresholds: bool) -> Self:
        """Return the encoder with the same layers and another R."""
        threshold = initial_thresholds(R, self.atoms.detach()) if learn_thresholds else None
        layers = {name: value for name, value in self.layers.items() if name != "price"}
        return self._of(R, layers, threshold)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters of the layers and, where it is learned, ``threshold``."""
        learned = {} if self.threshold is None else {"threshold": self.threshold.detach()}
        return {name: value.detach() for name, value in self.layers.items()} | learned

    @classmethod
    def from_tensors(cls, R: Regularizer, tensors: Mapping[str, Tensor], **options: Any) -> Self:
        """Return the encoder with the parameters that :meth:`tensors` gave; :meth:`tie` checks them."""
        layers = {name: value for name, value in tensors.items() if name != "threshold"}
        return cls(**options)._of(R, layers, tensors.get("threshold"))

    def in_units(self, mean: Tensor, x_scale: float, z_scale: float) -> Self:  # noqa: ARG002
        """Return the same layers: with b, x - b is in the units of the codes.

        Raises
        ------
        ValueError
            If the codes have other units than x.
        """
        check_one_scale(self.name, x_scale, z_scale)
        return self._of(self.current_regularizer.rescaled(z_scale), dict(self.layers), None)

    def tie(self, atoms: nn.Parameter, bias: nn.Parameter) -> None:
        """Take D and b."""
        layer = KINDS[self.kind]().initial(torch.empty_like(atoms, device="meta"), 1.0)  # shapes alone
        rows = {name: (self._rows(value.shape), *value.shape) for name, value in layer.items()}
        rows |= {"momentum": (self.n_layers,)} if self.momentum else {}
        rows |= {"price": (self.n_layers,)} if "price" in self.layers else {}
        rows |= {} if self.threshold is None else {"threshold": threshold_shape(self.regularizer, len(atoms))}
        check_tensors(f"{self.name} {self.kind}", self.tensors(), rows)
        self.atoms, self.bias = atoms, bias

    def _of(self, R: Regularizer, layers: Mapping[str, Tensor], threshold: Tensor | None) -> Self:
        """Return a fitted encoder with these options and copies of these parameters."""
        encoder = self.unfitted()
        encoder.regularizer = R
        copies = {
            name: nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format))
            for name, value in layers.items()
        }
        encoder.layers = nn.ParameterDict(copies)
        encoder.threshold = None if threshold is None else nn.Parameter(threshold)
        return encoder

    def _rows(self, shape: tuple[int, ...]) -> int:
        """Return the number of rows of a parameter of this shape: the number of layers, or 1 where layers share it."""
        is_shared = self.shared == "all" or (self.shared == "matrices" and len(shape) > 0)
        return 1 if is_shared else self.n_layers

    # --- used ------------------------------------------------------------------------------------------------------

    @property
    def n_features(self) -> int:
        """How many features x has."""
        return int(self.atoms.shape[1])

    def codes(self, x: Tensor) -> Codes:
        """Return the codes of the last layer; every layer keeps its codes sparse."""
        return self._codes(x, self.activation)

    def encode(self, x: Tensor) -> Encoding:
        """Return the codes of the last layer and their penalty, both with gradients through all layers."""
        pre, step, activation, prices = self._last(x, self.activation)
        encoding = activation.encoding(pre, step)
        if encoding.prices is not None:
            encoding = replace(encoding, prices=torch.cat([*prices, encoding.prices]))
        if self.isometry > 0:
            k = max(1, round(2 * float(encoding.codes.l0.double().mean())))
            mirror = 1.0 if self.regularizer.is_nonnegative else -1.0
            u = encoding.pre_activation.without_graph
            supports = Pattern(*row_support(u, k, mirror), n_columns=len(self.atoms))
            defect = isometry_defect(self.atoms, supports)
            encoding = replace(encoding, penalty=encoding.penalty + self.isometry * defect)
        return encoding

    def _codes(self, x: Tensor, activation: Activation) -> Codes:
        pre, step, activation, _ = self._last(x, activation)
        return activation.codes(pre, step)

    def _last(self, x: Tensor, activation: Activation) -> tuple[PreActivation, Tensor, Activation, list[Tensor]]:
        """Return the argument, the step and the activation of the last layer, and the prices of those before it."""
        kind = KINDS[self.kind]()
        rows = {name: value.unbind() for name, value in self.layers.items()}  # a shared row is one tensor for all
        past = Past.at_zero(x - self.bias, self.atoms)
        last: tuple[Codes, Tensor] | None = None
        prices: list[Tensor] = []
        for layer in range(self.n_layers):
            own = {name: value[min(layer, len(value) - 1)] for name, value in rows.items()}
            pre, step = kind.pre_activation(own, past), kind.prox_step(own)
            own_activation = activation.at_relative_price(float(own["price"])) if "price" in own else activation
            if layer + 1 == self.n_layers:
                break
            codes = own_activation.codes(pre, step)
            if self.training and self.regularizer.scope == "batch":
                prices.append(own_activation.price(pre.entries(codes.pattern), codes, step))
            decoded = codes.decode(self.atoms)
            pull = self.layers["momentum"][layer + 1] if self.momentum else 0.0
            points: list[tuple[float | Tensor, Codes, Tensor]] = [(1.0 + pull, codes, decoded)]
            if self.momentum and last is not None:
                points.append((-pull, *last))
            past, last = past.at(points, pre), (codes, decoded)
        return pre, step, own_activation, prices

    def judge_alone(self, R: Regularizer, prices: list[float]) -> None:
        """Replace R of batch scope by that of single samples; each layer has its own price."""
        super().judge_alone(R, prices)
        given = [torch.as_tensor(term.weight, dtype=torch.float64).mean() for term in R.terms if isinstance(term, L0)]
        weights = [price + float(sum(given)) for price in prices]  # prices are paid beside an L0 that R has
        relative = [weight / weights[-1] if weights[-1] > 0 else 1.0 for weight in weights]
        self.layers["price"] = nn.Parameter(torch.tensor(relative, dtype=self.dtype, device=self.device))

    @torch.no_grad()
    def l0_by_weight(self, x: Tensor) -> Callable[[float], Tensor]:
        """Return the L0 of the code of each row of x as a function of a factor on the weight of R."""
        return lambda factor: self._codes(x, self.activation.scaled(factor)).l0


def fista_momenta(n_layers: int) -> list[float]:
    r"""Return :math:`(\theta_s - 1) / \theta_{s+1}` of the point that each step starts from; the first starts at 0."""
    momenta, theta = [0.0], 1.0
    for _ in range(n_layers - 1):
        grown = grown_momentum(theta)
        momenta.append((theta - 1.0) / grown)
        theta = grown
    return momenta
