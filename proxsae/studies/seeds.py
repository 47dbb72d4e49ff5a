"""What several seeds gave, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_and_range(values: Sequence[float], form: str) -> str:
    """Return the mean in a format such as ``".3f"``, and behind it the range in brackets where there are several."""
    text = f"{np.mean(values):{form}}"
    return text if len(values) == 1 else f"{text} [{min(values):{form}}, {max(values):{form}}]"
