r"""
Which encoder and which R find the features, at which L0?
=========================================================

Features of language models are neither equally frequent nor independent. The samples here are made in the manner of
SynthSAEBench, at a size for a laptop: 128 non-negative features in 48 dimensions, with frequencies of Zipf, a hierarchy
(a feature fires only with its parent) and common factors. Each autoencoder is trained at three values of L0 and
measured against the truth: F1 of the support after matching, and the mean correlation coefficient (MCC) of the codes.
"""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np

from proxsae import ProxSAE
from proxsae.dictionary import (
    code_correlation,
    forest,
    match_atoms,
    sparse_signals,
    sphere_atoms,
    support_scores,
)
from proxsae.encoders import Unrolled
from proxsae.regularizers import L0, L1, Cardinality, NonNegative

warnings.filterwarnings("ignore", message=".*samples have not converged")
SMALL = "--small" in sys.argv
N_FEATURES, N_ATOMS, MEAN_L0 = 48, 128, 6.0
N_SAMPLES, N_STEPS = (300, 4) if SMALL else (20_000, 250)
LADDER = [6] if SMALL else [3, 6, 12]

data = sparse_signals(
    N_SAMPLES,
    sphere_atoms(N_ATOMS, N_FEATURES, random_state=0),
    MEAN_L0,
    bipolar=0.0,
    zipf=0.5,
    parents=forest(N_ATOMS, n_roots=32, n_children=3),
    correlation=0.1,
    noise=0.02,
    random_state=0,
)
n_test = min(2000, N_SAMPLES // 3)
X, X_new, Z_new = data.X[n_test:], data.X[:n_test], data.codes[:n_test]

# %%
# A weight of R is steered to the wanted L0; a cardinality is set to it.

amortized = {"n_steps": N_STEPS, "batch_size": 512, "learning_rate": 5e-3}
solved = {"encoder": "solved", "n_steps": max(2, N_STEPS // 5), "batch_size": 512}
contestants = {
    "ReLU": lambda k: ProxSAE(L1() + NonNegative(), target_l0=k, **amortized),
    "JumpReLU": lambda k: ProxSAE(L0() + NonNegative(), target_l0=k, **amortized),
    "TopK": lambda k: ProxSAE(NonNegative() + Cardinality(k), **amortized),
    "BatchTopK": lambda k: ProxSAE(NonNegative() + Cardinality(k, "batch"), **amortized),
    "TopK, unrolled": lambda k: ProxSAE(NonNegative() + Cardinality(k), encoder=Unrolled(3), **amortized),
    "TopK, solved": lambda k: ProxSAE(NonNegative() + Cardinality(k), **solved),
}
scores = {}
print(f"{'':18}{'L0':>6}{'FVU':>8}{'F1':>8}{'MCC':>8}")
for name, make in contestants.items():
    for k in LADDER:
        sae = make(k).set_params(n_components=N_ATOMS, device="cpu", random_state=0).fit(X)
        Z = sae.transform(X_new)
        f1 = support_scores(Z, Z_new, match_atoms(sae.components_, data.dictionary, signed=False)).f1
        found = Z.nnz / n_test, 1 - sae.score(X_new), f1, code_correlation(Z, Z_new, signed=False)
        scores.setdefault(name, []).append(found)
        print(f"{name:18}{found[0]:6.1f}{found[1]:8.3f}{found[2]:8.3f}{found[3]:8.3f}")

# %%
# Every autoencoder has its best F1 at the true mean L0, which the reconstruction does not show: it improves with
# every further code. The order by F1 is not that by reconstruction either: ReLU reconstructs worst, and finds more of
# the support than TopK. At the true L0, solved codes are the best by FVU and MCC; JumpReLU finds more of the support.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for axis, column, label in zip(axes, (1, 2, 3), ("FVU", "F1 of the support", "MCC of the codes"), strict=True):
    for name, found in scores.items():
        axis.plot(*np.array(found)[:, [0, column]].T, "o-", label=name)
    axis.axvline(data.codes.nnz / N_SAMPLES, color="0.8", zorder=0)
    axis.set(xlabel="L0 (grey: the true one)", ylabel=label, xscale="log")
    axis.set_xticks(LADDER, LADDER)
    axis.minorticks_off()
axes[0].legend(fontsize=7)
plt.show()
