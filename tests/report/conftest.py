"""A tiny language model, a harvest of it and an autoencoder, for the pages."""

import pytest
from llm_models import tiny_model, tiny_texts

from proxsae import ProxSAE
from proxsae.llm import harvest


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    return harvest(
        model,
        tiny_texts(80),
        block=2,
        n_tokens=600,
        context_length=16,
        out=tmp_path_factory.mktemp("store"),
        verbose=False,
    )


@pytest.fixture(scope="module")
def sae(store):
    fitted = ProxSAE("Cardinality(4)", 40, n_steps=30, batch_size=128, random_state=0).fit(store)
    fitted.history_ = {}  # its curves are of the other pages
    return fitted
