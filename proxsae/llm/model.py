"""A language model whose activations can be read and replaced at a site."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from proxsae.llm import hooks
from proxsae.llm.sites import Site


class Place(NamedTuple):
    """The properties of a site of a model, measured by its check."""

    width: int
    dtype: torch.dtype
    output: Any
    """What the site's module returned."""


@dataclass
class LanguageModel:
    """A causal language model whose activations can be read and replaced at a :class:`~proxsae.llm.sites.Site`.

    Made by :func:`proxsae.llm.load_model`, or directly from a transformers model and its tokenizer. Wherever a site is
    asked for, its text or a number of blocks will do. The model runs in evaluation mode, without gradients, and is left
    in the mode in which it was. Hooks of your own on its modules take effect, each once.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A decoder with a language-modelling head.
    tokenizer : transformers.PreTrainedTokenizerBase or None
        Its tokenizer; :func:`proxsae.llm.harvest` and :func:`proxsae.llm.evaluate` need it.
    name : str
        The name under which :func:`proxsae.llm.load_model` finds it again; written into activation stores.

    Attributes
    ----------
    blocks : torch.nn.ModuleList
        The decoder blocks, in order.
    n_blocks : int
        Their number.
    n_features : int
        Width of the residual stream.

    Raises
    ------
    ValueError
        If no module list has as many members as the configuration has blocks, or if it is no list of decoder blocks:
        a few tokens are run to see that the activations read after a block, given to the rest, lead to the logits of
        the whole model.
    """

    model: Any
    tokenizer: Any
    name: str
    blocks: nn.ModuleList = field(init=False, repr=False)
    n_blocks: int = field(init=False)
    n_features: int = field(init=False)
    _places: dict[tuple[Site, torch.dtype], Place] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = find_blocks(self.model, self.name)
        self.n_blocks = len(self.blocks)
        self.n_features = self.width((self.n_blocks + 1) // 2)

    @property
    def device(self) -> torch.device:
        """The device of the first parameter."""
        return next(iter(self.model.parameters())).device  # type: ignore[no-any-return]

    @property
    def n_vocabulary(self) -> int:
        """The number of token ids that the model can read."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def max_length(self) -> int | None:
        """How many tokens the model can read at once; None where its configuration sets no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def site(self, given: Site | int | str) -> Site:
        """Return the site of a text or a number.

        Raises
        ------
        ValueError
            If the model has no such site, or if the site fails its check, which is made once: activations read there
            and put back must give the logits of the plain model, and other activations must give others.
        """
        site = Site.of(given)
        self._place(site)
        return site

    def width(self, site: Site | int | str) -> int:
        """Return the number of features at a site."""
        return self._place(Site.of(site)).width

    def read(self, tokens: Tensor, site: Site | int | str) -> Tensor:
        """Return the activations at a site, shape (batch, length, n_features); the model after the site is not run."""
        return self.read_all(tokens, [site])[0]

    def read_all(self, tokens: Tensor, sites: Sequence[Site | int | str]) -> list[Tensor]:
        """Return the activations at several sites, read in one pass; what comes after the last is not run."""
        outputs = self._read(self._ids(tokens), [self.site(site) for site in sites])
        return [hooks.activations_of(output) for output in outputs]

    @torch.inference_mode()
    def logits(self, tokens: Tensor, site: Site | int | str | None = None, activations: Tensor | None = None) -> Tensor:
        """Return the logits, shape (batch, length, n_vocabulary).

        Where `activations` are given, they replace those of the model at the site; for a site after a block only the
        rest of the model is run.
        """
        tokens = self._ids(tokens)
        if site is None or activations is None:
            return self._run(tokens)
        site = Site.of(site)
        place = self._place(site)
        if activations.shape != (*tokens.shape, place.width):
            raise ValueError(
                f"activations have shape {tuple(activations.shape)}, but tokens of shape {tuple(tokens.shape)} need "
                f"{(*tokens.shape, place.width)} at '{site}' of {self.name}."
            )
        return self._spliced(tokens, site, activations.to(self.device, place.dtype), place.output)

    @contextmanager
    def replaced(self, site: Site | int | str, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within this context the activations x at the site are replace(x) for all that follows."""
        with hooks.replaced(self.model, self.blocks, self.site(site), replace):
            yield

    def fingerprint(self) -> str:
        """Return a text that identifies the weights and their precision: the dtype and a digest.

        The digest is of the sum of all bit patterns and of 64 values of each tensor, so that a model of any size is
        read once.
        """
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.model.state_dict().items()):
            if not isinstance(tensor, Tensor):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            if tensor.device.type != "meta" and tensor.numel():
                kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
                bits = tensor.detach().contiguous().reshape(-1).view(kind)
                some = bits[:: -(-len(bits) // 64)]
                digest.update(f"{int(bits.sum(dtype=torch.int64))} {some.tolist()}".encode())
        return f"{str(self.model.dtype).removeprefix('torch.')}:{digest.hexdigest()}"

    def _place(self, site: Site) -> Place:
        key = site, self.model.dtype  # the user may convert the model at any time
        if key not in self._places:
            site.check(self.n_blocks, self.name)
            self._places[key] = self._checked(site)
        return self._places[key]

    def _ids(self, tokens: Tensor) -> Tensor:
        n = self.n_vocabulary
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < n:
            wrong = int(tokens.max()) if int(tokens.max()) >= n else int(tokens.min())
            raise ValueError(
                f"The token id {wrong} was given, but the embedding of {self.name} has {n} rows; "
                "its tokenizer belongs to another model."
            )
        return tokens.to(self.device)

    @torch.inference_mode()
    def _read(self, tokens: Tensor, sites: Sequence[Site]) -> list[Any]:
        with evaluating(self.model):
            return hooks.run_until(self.model, self.blocks, sites, tokens)

    def _run(self, tokens: Tensor) -> Tensor:
        with evaluating(self.model):
            return self.model(input_ids=tokens, use_cache=False).logits  # type: ignore[no-any-return]

    def _spliced(self, tokens: Tensor, site: Site, activations: Tensor, output: Any) -> Tensor:
        """Return the logits with these activations at the site, whose module returns an object like `output`."""
        if site.what == "residual" and site.block:
            with hooks.resumed(self.blocks, site.block, activations, output):
                return self._run(tokens)
        with hooks.replaced(self.model, self.blocks, site, lambda _: activations):
            return self._run(tokens)

    @torch.inference_mode()
    def _checked(self, site: Site) -> Place:
        """Return the properties of a site, after a check of the site on a few tokens."""
        tokens = (torch.arange(8, device=self.device) % self.n_vocabulary).reshape(2, 4)
        plain = self._run(tokens)
        (output,) = self._read(tokens, [site])
        x = hooks.activations_of(output)
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape[:-1] != tokens.shape:
            found = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ValueError(
                f"'{site}' of {self.name} cannot be read: for tokens of shape {tuple(tokens.shape)} its module "
                f"{'takes' if site.is_input else 'gives'} {found}, where activations of shape (batch, length, "
                "n_features) are needed."
            )
        other = x + torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype) * (1 + x.abs().max())
        try:
            again, changed = (self._spliced(tokens, site, given, output) for given in (x, other))
        except Exception as error:
            raise ValueError(
                f"'{site}' of {self.name} cannot be replaced: given the activations that were read there, the rest of "
                f"the model fails ({type(error).__name__}: {error})."
            ) from error
        if not _agree(again, plain) or (_agree(changed, plain) and bool(plain.isfinite().all())):
            raise ValueError(
                f"'{site}' of {self.name} is not what its name says: put back, the activations read there do not "
                f"give the logits of the model, or other activations give the same{self._advice(site)}."
            )
        return Place(x.shape[-1], x.dtype, output)

    def _advice(self, site: Site) -> str:
        if site.what == "path":
            return "; the module is run in another way than once in the order of the model"
        blocks = f"{self.n_blocks} {type(self.blocks[0]).__name__}"
        return f"; only a decoder that is a chain of blocks can be used, and the list of {blocks} is none"


def check_model(model: Any) -> None:
    """Raise TypeError unless `model` is a language model as :func:`proxsae.llm.load_model` returns."""
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model must be a LanguageModel, such as load_model returns, got a {type(model).__name__}")


def find_blocks(model: nn.Module, name: str = "the model") -> nn.ModuleList:
    """Return the outermost module list that has as many members as the configuration has blocks."""
    config: Any = model.config
    n_blocks = getattr(config.get_text_config(), "num_hidden_layers", None)
    found = [
        (path.count("."), module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks
    ]
    if not found or not n_blocks:
        raise ValueError(
            f"{name} ({type(model).__name__}) has no list of {n_blocks} blocks; decoders such as GPT-2, GPT-NeoX, "
            "Llama, Qwen and Gemma have one."
        )
    return min(found, key=lambda pair: pair[0])[1]


def _agree(logits: Tensor, plain: Tensor) -> bool:
    """Whether logits are equal up to rounding."""
    scale = plain.nan_to_num().abs().max()
    return bool(torch.allclose(logits.float(), plain.float(), rtol=0, atol=float(1e-3 * scale), equal_nan=True))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this context no module is in training mode, so that dropout is off."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
