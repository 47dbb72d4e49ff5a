"""Jobs of several processes that torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path


def run_job(n_processes, folder, script, *arguments):
    """Run a script in so many processes on gloo, in a folder, with this folder of tests to import from."""
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    paths = [str(Path(__file__).parent), str(Path(__file__).parent / "training"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, str(Path.cwd())])}
    environment |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "script.py", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
