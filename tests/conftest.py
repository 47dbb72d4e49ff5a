"""Hypothesis profiles: short by default and the same at every run, long and new each time under ``make soak``.

A test that feeds damaged or hostile input to a reader carries ``@pytest.mark.fuzz`` and sets no ``max_examples`` of its
own, so that the profile decides how many inputs it sees.
"""

import os
import signal

import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter. It is chosen when Triton is first imported, which transformers does too.
    os.environ["TRITON_INTERPRET"] = "1"

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("default", max_examples=100, derandomize=True, **_COMMON)
settings.register_profile("soak", max_examples=10_000, database=None, **_COMMON)
settings.load_profile("default")

# Started by a shell in the background, Python ignores Ctrl-C, which tests send to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
