"""What several seeds gave, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proxsae.report.table import formatted


def mean_and_range(values: Sequence[float], form: str) -> str:
    """Return the mean in a format such as ``".3f"``, and behind it the range in brackets where there are several."""
    mean, least, most = (formatted(float(reduce(values)), form) for reduce in (np.mean, np.min, np.max))
    return mean if len(values) == 1 else f"{mean} [{least}, {most}]"
