r"""
What does the regularizer do to the dictionary of natural images?
=================================================================

The classical experiment of sparse coding: patches of photographs, here the two that come with scikit-learn, whitened,
and a dictionary of 100 atoms for

.. math:: \min_{D, b, z}\ \tfrac12 \|x - b - z D\|^2 + R(z), \qquad \|d_i\| = 1 .

Codes are solved and alternate with steps of the dictionary. Only R changes, and it is one line.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA
from sklearn.feature_extraction.image import extract_patches_2d

from proxsae import ProxSAE
from proxsae.dictionary import bipolarity, mutual_coherence
from proxsae.regularizers import L1, Cardinality, GroupL2, NonNegative

SIDE, N_ATOMS = 12, 100
SMALL = "--small" in sys.argv
N_PATCHES, N_STEPS = (600, 3) if SMALL else (20_000, 100)

# %%
# The mean of each patch is subtracted, and patches are whitened on the directions that hold 99 % of their variance:
# otherwise the low frequencies, which hold most of the variance, take all atoms. The flat half of the patches, much of
# it sky, is left out, and contrast is made equal.

images = [image.mean(axis=2) / 255 for image in load_sample_images().images]
patches = [extract_patches_2d(image, (SIDE, SIDE), max_patches=N_PATCHES, random_state=0) for image in images]
patches = np.concatenate(patches).reshape(-1, SIDE * SIDE)
patches -= patches.mean(axis=1, keepdims=True)
whitening = PCA(0.99 if not SMALL else 20, whiten=True, random_state=0).fit(patches)
X = whitening.transform(patches)
contrast = np.linalg.norm(X, axis=1, keepdims=True)
X = (X / contrast)[contrast[:, 0] > np.median(contrast)]
train, test = X[::2], X[1::2]
print(f"{len(train)} patches to learn from, {X.shape[1]} dimensions")

# %%
# The weights are such that codes have about ten non-zeros. A group of four atoms is on or off as a whole.

regularizers = {
    "soft threshold": 0.13 * L1(),
    "ReLU": 0.1 * L1() + NonNegative(),
    "AbsTopK": Cardinality(10),
    "groups of four": 0.12 * GroupL2(4),
}

fitted = {}
held_out = test[:2000]
print(f"{'':16}{'FVU':>7}{'L0':>7}{'coherence':>11}{'antipodal':>11}")
for name, R in regularizers.items():
    sae = ProxSAE(R, N_ATOMS, encoder="solved", n_steps=N_STEPS, batch_size=500, random_state=0).fit(train)
    fitted[name] = sae
    D, Z = sae.components_, sae.transform(held_out)
    numbers = mutual_coherence(D), bipolarity(D, threshold=0.5).antipodal
    fvu, l0 = 1 - sae.score(held_out), Z.nnz / Z.shape[0]
    print(f"{name:16}{fvu:7.3f}{l0:7.1f}{numbers[0]:11.2f}{numbers[1]:11.2f}")

# %%
# All find oriented edges of several sizes. Codes >= 0 need pairs of opposite atoms, signed codes have both in one
# atom. The four atoms of a group share a place and a direction, and differ in phase: together they answer to an edge
# wherever in its neighbourhood it is.

figure, axes = plt.subplots(2, 2, figsize=(9, 9.4), layout="constrained")
for (name, sae), axis in zip(fitted.items(), axes.flat, strict=True):
    atoms = (sae.components_ * np.sqrt(whitening.explained_variance_)) @ whitening.components_
    atoms /= np.abs(atoms).max(axis=1, keepdims=True)
    tiles = np.pad(atoms.reshape(10, 10, SIDE, SIDE), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1.0)
    axis.imshow(tiles.swapaxes(1, 2).reshape(10 * (SIDE + 1), -1)[:-1, :-1], cmap="gray", vmin=-1, vmax=1)
    axis.set_title(f"{name}: R = {regularizers[name]}")
    axis.axis("off")
plt.show()
