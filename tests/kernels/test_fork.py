"""A process that has computed with threads forks, and its child computes."""

import os
import subprocess
import sys

SCRIPT = """
import os
import numpy as np
from proxsae import ProxSAE
from proxsae.regularizers import Cardinality

X = np.random.default_rng(0).normal(size=(1000, 32)).astype(np.float32)
sae = ProxSAE(Cardinality(3), 256, n_steps=3, random_state=0).fit(X)
expected = sae.transform(X)
child = os.fork()
if child == 0:
    try:
        same = (sae.transform(X) != expected).nnz == 0
        finite = np.isfinite(sae.partial_fit(X).score(X))
    finally:
        os._exit(0 if same and finite else 1)
assert os.waitpid(child, 0)[1] == 0
assert (sae.transform(X) != expected).nnz == 0
print("both computed")
"""


def test_a_forked_child_computes():
    threads = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
        timeout=300,  # a child that hangs never ends
        check=False,
    )
    assert done.stdout.endswith("both computed\n"), done.stderr
