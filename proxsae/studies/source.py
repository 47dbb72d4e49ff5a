"""The source of the activations and the held-out text of a study, from which both can be made again."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxsae.data.store import ActivationStore
    from proxsae.llm import LanguageModel

MOST_FOR_CALIBRATION = 4096  # the last rows of a harvest: not trained on, for them steered weights are set


@dataclass(frozen=True)
class Source:
    """A language model, a place in it, and text.

    Attributes
    ----------
    block : str
        As in :func:`proxsae.llm.harvest`.
    n_tokens : int
        Rows harvested. The last tenth, at most 4096, is kept from training: steered weights are set on it.
    n_heldout : int
        Tokens of other documents on which autoencoders are measured.
    model, text : str, optional
        As in :func:`proxsae.llm.load_model` and :func:`proxsae.llm.documents`; None: the embedded ones.
    field : str, default "text"
    context_length : int, default 128
    packing : dict
        What differs from the defaults of :func:`proxsae.llm.harvest`: ``bos``, ``separator``, ``concatenate``,
        ``exclude_tokens``.
    """

    block: str
    n_tokens: int
    n_heldout: int = 8192
    model: str | None = None
    text: str | None = None
    field: str = "text"
    context_length: int = 128
    packing: dict[str, Any] = dataclasses.field(default_factory=dict)

    def load(self, device: str = "auto") -> LanguageModel:
        """Return the language model."""
        from proxsae.llm import load_model

        return load_model(self.model, device=device)

    def harvest(
        self, model: LanguageModel, out: str | os.PathLike[str], *, verbose: bool = True
    ) -> tuple[ActivationStore, ActivationStore]:
        """Return the rows to train on and those kept from training, harvested into `out` unless they are there."""
        from proxsae.llm import harvest

        store = harvest(
            model,
            self.text,
            block=self.block,
            n_tokens=self.n_tokens,
            out=out,
            context_length=self.context_length,
            field=self.field,
            **self.packing,
            verbose=verbose,
        )
        n_kept = min(MOST_FOR_CALIBRATION, len(store) // 10)
        return store.part(0, len(store) - n_kept), store.part(len(store) - n_kept, len(store))

    def evaluate(self, model: LanguageModel, saes: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the metrics of autoencoders on the held-out text."""
        from proxsae.llm import evaluate

        return evaluate(
            model,
            saes,
            self.text,
            block=self.block,
            n_tokens=self.n_heldout,
            context_length=self.context_length,
            field=self.field,
            **self.packing,
            verbose=False,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes; ``Source(**it)`` is the same again."""
        values = asdict(self)
        return values if self.packing else {name: value for name, value in values.items() if name != "packing"}
