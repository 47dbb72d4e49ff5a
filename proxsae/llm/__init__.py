"""Language models: harvest activations into a store, and evaluate sparse autoencoders inside the model.

``block=L`` is everywhere the residual stream after the first L blocks, ``hidden_states[L]`` of transformers, with
1 <= L <= n_blocks - 1.
"""

from proxsae.llm.evaluate import evaluate
from proxsae.llm.harvest import describe, harvest
from proxsae.llm.model import LanguageModel, load_model
from proxsae.llm.shard import StoreError
from proxsae.llm.store import ActivationStore
from proxsae.llm.text import documents
from proxsae.llm.writer import StoreWriter

__all__ = [
    "ActivationStore",
    "LanguageModel",
    "StoreError",
    "StoreWriter",
    "describe",
    "documents",
    "evaluate",
    "harvest",
    "load_model",
]
