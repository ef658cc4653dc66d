"""Parts that a user writes are whole, and their names stand for themselves."""

from dataclasses import dataclass

import pytest

from primal_dual import (
    Causal,
    Exponential,
    Primal,
    heads,
    register_attention,
)
from primal_dual.primal import catalog


@dataclass(frozen=True)
class PrefixLM(Causal):
    def sees(self, i, j):
        return (j <= i) | (j < 4)


@dataclass(frozen=True)
class Steep(Exponential):
    def log_gram(self, x, y):
        return 2 * super().log_gram(x, y)


@pytest.mark.parametrize(("field", "part"), [("support", PrefixLM()), ("kernel", Steep())])
def test_a_part_that_inherits_from_another_is_refused(field, part):
    """Its parent's quick formulas would take the place of its own."""
    with pytest.raises(ValueError, match=f"expected a part that is written whole; got {type(part).__name__}.*inherits"):
        Primal(**{field: part})


def test_a_registered_name_stands_for_its_primal_alone():
    """Scales differ from head to head under built-in names only."""
    coarse = Primal(scale=16)
    register_attention("coarse", coarse)
    try:
        assert list(heads("coarse", 4)) == [coarse] * 4
    finally:
        del catalog["coarse"]
    assert [each.scale for each in heads("sh", 4)] == [1, 2, 4, 8]
