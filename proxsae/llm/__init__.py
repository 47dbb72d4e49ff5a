"""Language models: harvest activations into a store, and evaluate sparse autoencoders inside the model.

``block=L`` is everywhere the residual stream after the first L blocks, ``hidden_states[L]`` of transformers, with
1 <= L <= n_blocks - 1.
"""

from proxsae.data.shard import StoreError
from proxsae.data.store import ActivationStore
from proxsae.data.writer import StoreWriter
from proxsae.llm.evaluate import evaluate
from proxsae.llm.harvest import describe, harvest
from proxsae.llm.model import LanguageModel, load_model
from proxsae.llm.text import documents

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
