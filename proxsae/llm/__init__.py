"""Language models: harvest activations, evaluate sparse autoencoders inside the model, and steer the model by them.

``block=15`` is everywhere the residual stream after 15 blocks, ``hidden_states[15]`` of transformers;
:mod:`proxsae.llm.sites` lists the other places that can be read.
"""

from proxsae.data.store import ActivationStore
from proxsae.llm.evaluate import evaluate
from proxsae.llm.generate import Continuation, generate, log_probabilities
from proxsae.llm.harvest import describe, harvest
from proxsae.llm.load import load_model
from proxsae.llm.model import LanguageModel
from proxsae.llm.sites import Site
from proxsae.llm.steering import steer, steered
from proxsae.llm.stream import ActivationStream
from proxsae.llm.text import documents

__all__ = [
    "ActivationStore",
    "ActivationStream",
    "Continuation",
    "LanguageModel",
    "Site",
    "describe",
    "documents",
    "evaluate",
    "generate",
    "harvest",
    "load_model",
    "log_probabilities",
    "steer",
    "steered",
]
