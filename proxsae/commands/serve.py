"""proxsae serve: the page of all atoms of a trained SAE, which also reads texts of yours."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from proxsae.commands.harvested import add_harvest, check_store, harvest_like, store_and_model
from proxsae.commands.parser import BLOCK, OF_STORE_OR_SAE, OURS, add_command, add_model, check_counts


def add(commands: Any) -> None:
    """Add the command to the parser of all."""
    command = add_command(
        commands,
        "serve",
        run,
        "show the page of a trained SAE on this computer, and read texts of yours token by token",
        "proxsae serve sae.safetensors activations",
    )
    command.add_argument("sae", help="model written by proxsae fit, or of any library")
    command.add_argument("store", type=Path, nargs="?", help="activation store (default: a new harvest of --tokens)")
    add_model(command, f"that of the store, else {OURS}")
    command.add_argument("--block", nargs="+", help=f"{BLOCK}; of a crosscoder several {OF_STORE_OR_SAE}")
    command.add_argument("--any-place", action="store_true", help="even where a SAE comes from another model or block")
    command.add_argument("--tokens", type=int, default=30_000, help="rows of the store that count (default: 30000)")
    add_harvest(command)
    command.add_argument("--port", type=int, default=8000, help="of 127.0.0.1 (default: 8000; 0 takes a free one)")


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from proxsae.formats import load
    from proxsae.llm import load_model
    from proxsae.llm.harvest import sites_of
    from proxsae.llm.provenance import at_place_of, check_same_place, names_of, no_place
    from proxsae.report import PageServer, explorer_page, read_text
    from proxsae.report.explorer import decoder, reading_content
    from proxsae.report.packing import packed

    check_counts(options, "tokens")
    check_store(options)
    with (
        PageServer(options.port) as server,
        nullcontext("") if options.store else tempfile.TemporaryDirectory() as folder,
    ):
        sae, name = load(options.sae), Path(options.sae).name
        if options.store:
            store, model = store_and_model({name: sae}, options)
        else:
            hooks = options.block or sae.provenance_.get("site")
            if not hooks:
                raise no_place(sae, name, "--block")
            model = load_model(options.model)
            if not options.any_place:  # before minutes of a harvest
                check_same_place(sae, model, names_of(sites_of(model, hooks)), name)
            store = harvest_like({options.sae: sae}, model, hooks, options, folder)
            store = at_place_of({name: sae}, store, check_provenance=False)
        server.page = explorer_page(
            sae,
            store.part(0, options.tokens),
            model,
            title=f"Features of {name}",
            is_live=True,
            check_provenance=False,  # compared above
        )
        read = partial(read_text, model, sae, list(store.sites), harvest=store.info)
        server.answer = lambda text: packed(reading_content(read(text), decoder(model)))
        print(f"page: http://{server.hosts[0]}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")
