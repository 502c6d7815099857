"""The page that an evaluation ends with."""

from elastic.evaluate.comparisons import comparisons
from elastic.evaluate.report.comparisons import comparison_table, leakage_table
from elastic.evaluate.report.overview import overview
from elastic.evaluate.report.table import table
from elastic.evaluate.summary import leakages, rows_of
from tests.evaluate.statistics.samples import answers

FIRST = answers([[1, 0], [0, 0]], method="vanilla")
CUT = answers([[1, 1], [1, 0]], cut=True)
WHOLE = answers([[1, 1], [1, 0]], budget=(None, None, None))
LAST = answers([[1, 0], [1, 0]], method="s1")


def test_one_method_whose_thoughts_stay_whole_has_its_rows_alone() -> None:
    assert overview(FIRST, (1, 2)) == table(rows_of(FIRST, (1, 2)))


def test_further_methods_are_compared_with_the_first() -> None:
    samples = [*FIRST, *WHOLE, *LAST]
    found = [*comparisons(samples, "e1", ["vanilla"]), *comparisons(samples, "s1", ["vanilla"])]
    assert overview(samples) == f"{table(rows_of(samples))}\n\n{comparison_table(found)}"


def test_leakage_stands_for_methods_that_have_cut_and_whole_thoughts() -> None:
    text = overview([*CUT, *WHOLE])
    assert text.endswith(leakage_table(leakages([*CUT, *WHOLE])))
