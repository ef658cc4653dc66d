"""The conformance table in the documentation is what the models do."""

import pytest

from tests.torch_impl.drop_in import conformance

TEXT = conformance.FILE.read_text(encoding="utf-8")
ROWS = {line.split("|")[1].strip(): line for line in TEXT.splitlines() if line.startswith("|")}


@pytest.fixture(autouse=True, scope="module")
def registered():
    conformance.start()


def test_the_table_has_its_head_and_all_models():
    assert TEXT.startswith(conformance.HEAD)
    assert [*ROWS][2:] == conformance.MODELS and len(conformance.MODELS) >= 30


@pytest.mark.parametrize("kind", conformance.MODELS)
def test_a_model(kind):
    found = conformance.row(kind)
    assert found == ROWS[kind] and "off by" not in found
