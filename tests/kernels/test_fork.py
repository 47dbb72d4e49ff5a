"""A process that has computed with threads forks, and its child computes."""

import os
import subprocess
import sys

SCRIPT = """
import os
import numpy as np
import torch
from proxsae import ProxSAE, solve
from proxsae.regularizers import Cardinality

X = np.random.default_rng(0).normal(size=(1000, 32)).astype(np.float32)
sae = ProxSAE(Cardinality(3), 256, n_steps=3, random_state=0).fit(X)
expected = sae.transform(X)
tensor, D = torch.from_numpy(X), torch.from_numpy(sae.components_)

def estimator():
    assert (sae.transform(X) != expected).nnz == 0
    assert np.isfinite(sae.partial_fit(X).score(X))

jobs = [
    estimator,
    lambda: Cardinality(3).prox(tensor @ D.T),
    lambda: solve(tensor, D, "0.5*L1", method="fista"),
    lambda: solve(X, sae.components_, "0.5*L1"),
    lambda: sae.encoder_(tensor),
]
for job in jobs:
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            job()
            failed = 0
        finally:
            os._exit(failed)
    assert os.waitpid(child, 0)[1] == 0
print("all computed")
"""


def test_a_forked_child_computes():
    threads = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
        timeout=200,  # a child that hangs never ends
        check=False,
    )
    assert done.stdout.endswith("all computed\n"), done.stderr
