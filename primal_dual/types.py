"""Types that say shapes: Float[Array, "... N D"] is an array of floats with any leading axes, then N by D.

An Array is whatever the formula understands: a NumPy array, an autograd box, or a torch tensor. The annotations are
checked while the tests run, where jaxtyping is loaded first; without it they are text for the reader and cost nothing.
"""

import sys
from typing import TYPE_CHECKING, Any

Array = Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Int, Integer, Num, UInt8
else:

    class Unchecked:
        """Stands for a jaxtyping type: Unchecked[Array, "N D"] is Unchecked."""

        def __class_getitem__(cls, array_and_shape):
            return cls

    Bool = Float = Int = Integer = Num = UInt8 = Unchecked

__all__ = ["Array", "Bool", "Float", "Int", "Integer", "Num", "UInt8"]
