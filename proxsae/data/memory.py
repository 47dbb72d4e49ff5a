"""The size of main memory."""

from __future__ import annotations

import os


def physical_memory() -> int:
    """Return the bytes of main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
