"""What several seeds gave, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_and_range(values: Sequence[float], digits: int) -> str:
    """Return the mean, and behind it the range in brackets where there are several."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} [{min(values):.{digits}f}, {max(values):.{digits}f}]"
