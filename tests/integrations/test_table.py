"""docs/engines.md names tests that exist, and is up to date."""

import pytest

from tests.integrations import table
from tests.integrations.rules import REFUSED, SCENARIOS
from tests.integrations.table import RULES, Engine


def test_every_named_test_exists():
    assert table.missing() == []


def test_the_page_is_what_the_table_says():
    page = table.PAGE.read_text()
    assert page == table.written(page), "run python -m tests.integrations.table"


def test_a_named_test_that_does_not_exist_is_found(monkeypatch):
    gone = Engine("one", "integrations/test_table.py::test_gone", dict.fromkeys(RULES, "a.py::test_b"))
    monkeypatch.setattr(table, "ENGINES", (gone,))
    assert table.missing() == ["a.py::test_b"]


@pytest.mark.parametrize(("proofs", "gaps"), [({}, {}), ({"R10": "a.py::test_b"}, {"R10": "not there"})])
def test_a_cell_is_a_test_or_a_gap(proofs, gaps):
    with pytest.raises(ValueError, match="one: R10: expected a test or a gap, and not both"):
        Engine("one", "a.py::test_b", proofs, gaps).test("R10")


def test_scenarios_have_names_of_their_own_and_belong_to_rules():
    names = [one.name for one in (*SCENARIOS, *REFUSED)]
    assert len(set(names)) == len(names)
    assert {name.split()[0] for name in names} <= RULES.keys()
