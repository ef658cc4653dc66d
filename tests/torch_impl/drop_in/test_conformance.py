"""The conformance table in the documentation is what the models do."""

import pytest

from tests.torch_impl.drop_in import conformance

TEXT = conformance.FILE.read_text(encoding="utf-8")
CELLS = ([cell.strip() for cell in line.split("|")[1:-1]] for line in TEXT.splitlines() if line.startswith("|"))
ROWS = {kind: cells for kind, *cells in CELLS}
QUICK = tuple(column for column in conformance.COLUMNS if column not in conformance.SLOW)


@pytest.fixture(autouse=True, scope="module")
def registered():
    conformance.start()


def test_the_table_has_its_head_and_all_models():
    assert TEXT.startswith(conformance.HEAD)
    assert [*ROWS][2:] == conformance.MODELS and len(conformance.MODELS) >= 30


@pytest.mark.parametrize("kind", conformance.MODELS)
def test_a_model(kind):
    columns = (*QUICK, *conformance.SLOW) if kind in ("bert", "vit", "gpt2", "bart") else QUICK
    found = conformance.row(kind, columns)
    assert found == ROWS[kind][: len(columns)] and "off by" not in " ".join(ROWS[kind])
