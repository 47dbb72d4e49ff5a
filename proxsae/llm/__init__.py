"""Language models: harvest activations into a store, and evaluate sparse autoencoders inside the model.

``block=15`` is everywhere the residual stream after 15 blocks, ``hidden_states[15]`` of transformers;
:mod:`proxsae.llm.sites` lists the other places that can be read.
"""

from proxsae.data.store import ActivationStore
from proxsae.llm.evaluate import evaluate
from proxsae.llm.harvest import describe, harvest
from proxsae.llm.load import load_model
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site
from proxsae.llm.text import documents

__all__ = [
    "ActivationStore",
    "LanguageModel",
    "Site",
    "describe",
    "documents",
    "evaluate",
    "harvest",
    "load_model",
]
