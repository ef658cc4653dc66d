"""Parts of the lines of Python that a view shows: arrays, and the imports that a primal needs."""

import re
from typing import Any

import numpy as np

from primal_dual.primal import Primal


def array(x: np.ndarray) -> str:
    """An array as the call that makes it."""
    return f"np.array({x.tolist()})"


def imports(primals: Primal | tuple[Primal, ...], *functions: str) -> str:
    """The line that imports the parts of primals, and some functions.

    Examples
    --------
    >>> imports(Primal(), "attention")
    'from primal_dual import Everything, Exponential, Identity, Primal, attention'
    """
    parts: Any = re.findall(r"\b([A-Z]\w+)\(", repr(primals))
    return f"from primal_dual import {', '.join(sorted({*parts, *functions}))}"
