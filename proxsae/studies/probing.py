"""k-sparse probing: how well a few atoms of an autoencoder tell a property of a token or the topic of a document."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxsae.formulas.integers import checked_count, evenly_spaced
from proxsae.llm.provenance import at_place_of
from proxsae.metrics import SparseAutoencoder, codes_of
from proxsae.studies.labels import Bits, Documents, documents_of, token_properties, topics
from proxsae.studies.seeds import mean_and_range

if TYPE_CHECKING:
    from proxsae.data.store import ActivationStore
    from proxsae.estimator import ProxSAE

KS = (1, 2, 5, 16)
LEAST = 20  # samples of either class, in either half
ALL = "all"


def probe(
    saes: Mapping[str, SparseAutoencoder],
    store: ActivationStore,
    tokenizer: Any,
    *,
    ks: Sequence[int] = KS,
    n_tokens: int = 20_000,
    topic_of: Mapping[str, str] | None = None,
    check_provenance: bool = True,
) -> tuple[list[dict[str, Any]], list[str]]:
    r"""Return how well k atoms tell properties of tokens, and topics of documents, by logistic regression.

    The properties need no annotation (spelling, the token before, position). The topic is told from the mean of the
    codes over a document. The probe is fitted on the first half of the store, and its balanced accuracy is measured on
    the second: 1/2 is chance. The k atoms are those whose codes correlate best with the label on the first half.

    For comparison the k best features of the activations and all features, the ceiling, are probed; and for each
    autoencoder, as a floor, an autoencoder of random atoms with as many non-zeros.

    Parameters
    ----------
    saes : mapping of str to object
        With ``transform``. Signed codes are also probed doubled: :math:`[\max(z, 0), \max(-z, 0)]`.
    store : ActivationStore
        Probes are fitted and tested on its rows; a part of a store is one. Of several sites, that of the autoencoders
        is used.
    tokenizer : object
        The tokenizer of the model of the store.
    ks : sequence of int, default (1, 2, 5, 16)
        A k above the number of codes is left out.
    n_tokens : int, default 20_000
        Evenly spaced rows for the properties of tokens; topics take all rows.
    topic_of : mapping of str to str, optional
        From the title of a document (what stands before its first blank line) to its topic; by default that of the
        embedded Wikipedia, or with a warning no topic where no token closes the documents of the store.
    check_provenance : bool, default True
        Refuse an autoencoder that was fitted on another model or another place than those of the store.

    Returns
    -------
    results : list of dict
        ``name``, ``codes`` ("signed", "doubled", "non-negative", "random", "activations"), ``label``, ``level``
        ("token" or "topic"), ``k`` (a number, or "all") and ``accuracy``.
    left_out : list of str
        Labels with fewer than 20 samples of either class in either half.

    Raises
    ------
    ValueError
        If all labels are left out, a k is below 1, all are above the number of atoms, an autoencoder comes from another
        place, they do not read at one place of the store, or `topic_of` is given and no token closes the documents.

    References
    ----------
    Gurnee et al. (2023), Finding neurons in a haystack: case studies with sparse probing, arXiv:2305.01610.
    """
    store = at_place_of(saes, store, check_provenance=check_provenance)
    tasks, left_out = _tasks(store, tokenizer, n_tokens, topic_of)
    if not tasks:
        raise ValueError(
            f"no label has {LEAST} samples of each class in both halves of the {len(store):,} rows, of which at most "
            f"{n_tokens:,} are read for tokens; give more"
        )
    x = np.asarray(store[:], np.float32)
    for name, sae in saes.items():
        if min(ks, default=0) > (n_atoms := codes_of(sae, x[:1]).shape[1]):
            raise ValueError(f"'{name}' has {n_atoms} atoms, and the least k is {min(ks)}; give a smaller one")
    results = list(_probed("activations", "activations", x, tasks, (*ks, ALL)))
    for number, (name, sae) in enumerate(saes.items()):
        Z = codes_of(sae, x)
        is_signed = bool((Z.data < 0).any())
        results += _probed(name, "signed" if is_signed else "non-negative", Z, tasks, ks)
        if is_signed:
            results += _probed(name, "doubled", doubled(Z), tasks, ks)
        results += _probed(name, "random", codes_of(_random_autoencoder(Z, x, is_signed, number), x), tasks, ks)
    return results, left_out


def k_sparse_accuracies(Z: Any, y: Bits, is_train: Bits, ks: Sequence[int | str]) -> dict[int | str, float]:
    """Return for each k the balanced accuracy of a logistic regression on the k columns of Z that tell y best.

    Columns are chosen and the regression is fitted on samples with `is_train`; the accuracy is that on the others.

    Parameters
    ----------
    Z : array or CSR matrix of shape (n_samples, n_columns)
    y, is_train : boolean arrays of shape (n_samples,)
    ks : sequence of int or "all"
        A k above the number of columns is left out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    best = np.argsort(-correlations(Z[is_train], y[is_train]), kind="stable")
    accuracies = {}
    for k in ks:
        n_chosen = len(best) if k == ALL else checked_count("k", k)
        if n_chosen > len(best):
            continue
        chosen = Z[:, best[:n_chosen]]
        chosen = np.asarray(chosen.todense() if hasattr(chosen, "todense") else chosen, dtype=np.float64)
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        model.fit(chosen[is_train], y[is_train])
        accuracies[k] = float(balanced_accuracy_score(y[~is_train], model.predict(chosen[~is_train])))
    return accuracies


def correlations(Z: Any, y: Bits) -> NDArray[np.float64]:
    """Return the modulus of the correlation of each column of Z with y; 0 for a column that does not vary."""
    n, Z = len(y), Z.astype(np.float64)  # in float32 a mean far above the deviation would leave no digits
    mean = np.asarray(Z.mean(axis=0)).reshape(-1)
    if hasattr(Z, "multiply"):
        variance = np.asarray(Z.multiply(Z).mean(axis=0)).reshape(-1) - mean**2
    else:
        Z -= mean
        variance = np.einsum("ij,ij->j", Z, Z) / n
    deviation = np.sqrt(np.maximum(variance, 0))
    covariance = np.asarray(Z.T @ (y - y.mean())).reshape(-1) / n
    varies = deviation > 1e-6 * (1e-30 + np.abs(mean))
    found: NDArray[np.float64] = np.abs(covariance) / np.where(varies, deviation, np.inf) / y.std()
    return found


def doubled(Z: Any) -> Any:
    """Return the codes [max(z, 0), max(-z, 0)], a column for each side of an atom."""
    from scipy.sparse import hstack

    return hstack([Z.maximum(0), (-Z).maximum(0)], format="csr")


class _Task(NamedTuple):
    """Labels of tokens, or of documents."""

    level: str
    samples: Any  # the rows, or the matrix that means them
    is_train: Bits
    labels: dict[str, Bits]


def _tasks(
    store: ActivationStore, tokenizer: Any, n_tokens: int, topic_of: Mapping[str, str] | None
) -> tuple[list[_Task], list[str]]:
    rows = evenly_spaced(len(store), n_tokens)
    tasks = [_Task("token", rows, rows < len(store) // 2, token_properties(store, rows, tokenizer))]
    documents = documents_of(store, tokenizer)
    if documents is not None:
        tasks.append(_of_topics(documents, len(store), topic_of))
    else:
        untold = "documents of this store cannot be told apart, since no token closes them"
        if topic_of is not None:
            raise ValueError(f"{untold}: leave the topics out")
        warnings.warn(f"{untold}: topics are left out.", stacklevel=3)
    left_out = []
    for task in tasks:
        for name, y in list(task.labels.items()):
            if min(np.bincount(y[half], minlength=2).min() for half in (task.is_train, ~task.is_train)) < LEAST:
                left_out.append(name)
                del task.labels[name]
    return [task for task in tasks if task.labels], left_out


def _of_topics(documents: Documents, n_rows: int, topic_of: Mapping[str, str] | None) -> _Task:
    from scipy.sparse import csr_matrix

    topic = topics(documents, topic_of)
    labelled = np.array(sorted(topic), dtype=np.intp)
    member = np.flatnonzero(np.isin(documents.of_row, labelled))
    place = np.searchsorted(labelled, documents.of_row[member])
    counts = np.bincount(place, minlength=len(labelled))
    mean = csr_matrix((1 / counts[place], (place, member)), shape=(len(labelled), n_rows))
    is_train = np.arange(len(labelled)) < len(labelled) // 2
    names = np.array([topic[int(document)] for document in labelled])
    return _Task("topic", mean, is_train, {name: names == name for name in sorted(set(names.tolist()))})


def _probed(name: str, codes: str, Z: Any, tasks: list[_Task], ks: Sequence[int | str]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        samples = task.samples @ Z if task.level == "topic" else Z[task.samples]
        for label, y in task.labels.items():
            for k, accuracy in k_sparse_accuracies(samples, y, task.is_train, ks).items():
                yield {"name": name, "codes": codes, "level": task.level, "label": label, "k": k, "accuracy": accuracy}


def _random_autoencoder(Z: Any, x: NDArray[np.floating], is_signed: bool, seed: int) -> ProxSAE:
    """Return an autoencoder of as many atoms and non-zeros, whose atoms are random directions about the mean."""
    import torch

    from proxsae.dictionary import sphere_atoms
    from proxsae.encoders import Amortized
    from proxsae.estimator import ProxSAE
    from proxsae.regularizers import get

    k = max(1, round(Z.nnz / Z.shape[0]))
    mean = x.mean(axis=0)
    atoms = sphere_atoms(Z.shape[1], x.shape[1], random_state=seed).astype(x.dtype)
    weight, bias = torch.from_numpy(atoms), torch.from_numpy(-atoms @ mean)
    encoder = Amortized.of(get("abstopk" if is_signed else "topk", k=k), weight, bias)
    return ProxSAE.from_parts(atoms, mean, encoder)


def probe_table(results: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the results as text: the mean over the labels of a level, and over seeds with their range in brackets.

    Names that differ in what follows a final "-seed" are seeds of one kind, whatever file or folder they name.
    """
    ks = list(dict.fromkeys(result["k"] for result in results))
    found: dict[tuple[str, str, str], dict[Any, dict[str, list[float]]]] = {}
    for result in results:
        kind = re.sub(r"-seed\d+(\.\w+)?/?$", "", result["name"])
        cells = found.setdefault((result["level"], result["codes"], kind), {})
        cells.setdefault(result["k"], {}).setdefault(result["name"], []).append(result["accuracy"])
    table = []
    for (level, codes, kind), cells in sorted(found.items(), key=lambda item: (item[0][0], item[0][2], item[0][1])):
        means = {k: [float(np.mean(values)) for values in by_sae.values()] for k, by_sae in cells.items()}
        texts = {f"k = {k}": mean_and_range(means[k], ".3f") if k in means else "" for k in ks}
        table.append({"": kind, "codes": codes, "labels": level, **texts})
    return table
