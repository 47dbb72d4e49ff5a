"""Write the files of the real libraries that `make test` reads, with what those libraries compute from them.

    python tests/formats/peers/make_foreign.py

needs an environment that has the libraries: that of `make test-formats`, with the sources of those on no registry on
the path. Files of a library that is not there stay as they are.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import torch
from compare import peers
from parameters import rows

FILES = Path(__file__).parent.parent / "files"
D, P, N = 3, 8, 5
HALF = {"standard": torch.bfloat16, "jumprelu": torch.float16}


def short(array):
    """Numbers of float32 with as many digits as they have."""
    return [[float(str(number)) for number in row] for row in array.astype("float32")]


def main():
    X = rows(N, D)
    for peer in peers():
        for name, write in {**peer.CASES, **getattr(peer, "ONCE", {})}.items():
            folder = FILES / re.sub(r"\W+", "_", f"{peer.FORMAT}_{name}")
            shutil.rmtree(folder, ignore_errors=True)
            path = write(folder, D, P, HALF.get(name, torch.float32)) or folder
            codes, reconstruction = peer.forward(path, X)
            shutil.rmtree(folder / "inference", ignore_errors=True)
            recorded = {
                "library": peer.NAME,
                "architecture": name,
                "path": str(path.relative_to(folder)),
                "rows": X.tolist(),
                "codes": short(codes),
                "reconstruction": short(reconstruction),
            }
            (folder / "recorded.json").write_text(json.dumps(recorded) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
