"""``python -m proxsae`` is the command line."""

import sys

from proxsae.cli import main

sys.exit(main())
