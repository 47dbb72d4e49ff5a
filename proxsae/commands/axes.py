"""proxsae axes: whether the atoms of a signed SAE have two directions that mean opposite things."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from proxsae.commands.harvested import add_harvest, check_store, harvest_like, store_and_model
from proxsae.commands.parser import BLOCK, OF_STORE_OR_SAE, OURS, add_command, add_model, check_counts

N_NULL = 2000  # axes of the null
N_CARDS = 4


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "axes",
        run,
        "test whether the two signs of atoms mean opposite things, and find the atoms of pairs of words",
        "proxsae axes abstopk.safetensors activations --against topk.safetensors --pairs pairs.csv --out axes.html",
    )
    command.add_argument("sae", help="model with signed codes, written by proxsae fit, or of any library")
    command.add_argument("store", type=Path, nargs="?", help="activation store (default: a new harvest of --tokens)")
    command.add_argument("--against", metavar="SAE", help="one-sided model, such as TopK: the null, and its pairs")
    command.add_argument("--pairs", type=Path, help="CSV file with two opposite words a line (default: a list of ours)")
    add_model(command, f"that of the store, else {OURS}")
    command.add_argument("--block", help=f"{BLOCK} {OF_STORE_OR_SAE}")
    command.add_argument("--any-place", action="store_true", help="even where a SAE comes from another model or block")
    command.add_argument("--tokens", type=int, default=30_000, help="rows of the store that are read (default: 30000)")
    add_harvest(command)
    command.add_argument("--least", type=int, default=20, help="non-zeros a side that an atom needs (default: 20)")
    command.add_argument("--out", type=Path, default=Path("axes.html"), help="the page (default: axes.html)")


def run(options: argparse.Namespace) -> None:
    """Print the tables and write the page."""
    from proxsae.data.outputs import check_output
    from proxsae.formats import load
    from proxsae.formats.places import is_side_by_side
    from proxsae.llm import load_model
    from proxsae.llm.opposites import ANTONYMS, read_pairs
    from proxsae.llm.steering import check_one_place, site_of

    check_counts(options, "tokens", "least")
    check_store(options)
    check_output(options.out, options.sae, options.store, options.against, options.pairs, options.text)
    pairs = read_pairs(options.pairs or ANTONYMS)
    if options.against and Path(options.against).resolve() == Path(options.sae).resolve():
        raise ValueError(f"--against {options.against} is the model itself; give another one")
    saes = {name: load(path) for name, path in _named(options.sae, options.against).items()}
    for sae in saes.values():
        check_one_place(sae)
    if options.store:
        store, model = store_and_model(saes, options)
        block, check = store.info["site"], False  # which store_and_model compares
        if is_side_by_side(block):
            raise ValueError(f"the rows are of {block!r} side by side, and axes are those of one place")
    else:
        model, block, check = load_model(options.model), options.block, not options.any_place
    sites = [site_of(model, sae, block, check_provenance=check) for sae in saes.values()]
    if len(set(sites)) > 1:
        raise ValueError(f"the two models are of different sites: {sites[0]} and {sites[1]}")
    if options.store:
        _write(options, model, saes, pairs, store)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _write(options, model, saes, pairs, harvest_like(saes, model, sites[0], options, folder))


def _write(options: Any, model: Any, saes: dict[str, Any], pairs: list[tuple[str, str]], store: Any) -> None:
    import numpy as np

    from proxsae.dictionary.opposites import opposition, random_sides, sides_of
    from proxsae.llm import opposites
    from proxsae.metrics import codes_of
    from proxsae.report import feature_cards, format_table, write_sections
    from proxsae.report import opposites as page
    from proxsae.report.explorer import writes_to_stream

    name, sae = next(iter(saes.items()))
    site = store.info["site"]
    rows, X, next_tokens = opposites.rows_with_next_token(store, options.tokens)
    lens = opposites.logit_lens(model) if writes_to_stream(sae, [site], model) else None
    Z = codes_of(sae, X)
    against, other = list(saes.items())[-1]
    glued = random_sides(Z if other is sae else codes_of(other, X), other.components_, N_NULL, least=options.least)
    found, null = (
        opposition(sides, X, next_tokens, lens, least=options.least) for sides in (sides_of(Z, sae.components_), glued)
    )
    if not len(found.axes):
        raise ValueError(f"no atom of {name} has {options.least} non-zeros on both sides in {len(X):,} rows")
    has_bos = store.info.get("bos") is not False
    words = opposites.read_words(model, site, [word for pair in pairs for word in pair], bos=has_bos)
    of_pairs = {title: opposites.pair_codes(one, words, pairs) for title, one in saes.items()}
    mixed = [pair for seed in range(5) for pair in opposites.shuffled_pairs(pairs, seed)] if len(pairs) > 1 else pairs
    by_chance = {title: opposites.pair_codes(one, words, mixed) for title, one in saes.items()}
    several = sorted(word for word, read in words.items() if read.n_tokens > 1)
    notes = [f"Words of several tokens, read at the last: {', '.join(several)}."] if several else []
    null_name = f"two one-sided atoms of {against} glued together at random"
    sections = [
        page.opposition_section(found, null, len(sae.components_), null_name),
        page.pairs_section(of_pairs, by_chance, notes),
    ]
    for section in sections:
        print(f"{section.heading}\n{format_table(section.table)}\n")
    for note in notes:
        print(note)
    order = found.axes[np.argsort(-found.lens, kind="stable")].tolist() if lens else []
    middle = max(0, len(order) // 2 - N_CARDS // 2)
    carrying = list(dict.fromkeys(code.atom for code in of_pairs[name] if code.atom is not None))
    part = store.part(0, int(rows[-1]) + 1)
    codes = codes_of(sae, part)
    cards = [
        feature_cards(codes, part, lambda token: str(model.tokenizer.decode([token])), atoms=_alive(codes, atoms))
        for atoms in (order[:N_CARDS], order[middle : middle + N_CARDS], carrying)
    ]
    write_sections(
        options.out,
        title=f"Two directions: {name}",
        facts={
            "Regularizer": str(sae.regularizer),
            "Atoms": f"{len(sae.components_):,}",
            "Activations": f"{model.name}, {site}, {len(X):,} tokens",
        },
        sections=[*sections, *page.card_sections(*cards), page.pair_table(pairs, of_pairs)],
    )
    print(f"page: {options.out.resolve()}")


def _named(*paths: str | None) -> dict[str, str]:
    """Return the paths that are given by the names of their files, or where these are alike by themselves."""
    given = [path for path in paths if path]
    named = {Path(path).name.removesuffix(".safetensors"): path for path in given}
    return named if len(named) == len(given) else dict(zip(given, given, strict=True))


def _alive(codes: Any, atoms: list[int]) -> list[int]:
    """Return the first atoms that fire in the codes."""
    counts = codes.getnnz(axis=0)
    return [atom for atom in atoms if counts[atom]][:N_CARDS]
