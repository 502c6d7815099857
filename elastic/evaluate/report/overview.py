"""An evaluation on one page of text."""

from collections.abc import Sequence

from elastic.evaluate.comparisons import comparisons
from elastic.evaluate.report.comparisons import comparison_table, leakage_table
from elastic.evaluate.report.table import table
from elastic.evaluate.sample import Sample
from elastic.evaluate.summary import leakages, rows_of


def overview(samples: Sequence[Sample], ks: Sequence[int] = (1,)) -> str:
    """The rows; each further method against the first; leakage where it is defined.

    Args:
        samples: of the same methods on every set.
        ks: the k of pass@k.

    Raises:
        ValueError: as `rows_of` and `comparisons`.
    """
    first, *others = dict.fromkeys(sample.method for sample in samples)
    tables = [table(rows_of(samples, ks))]
    found = [item for method in others for item in comparisons(samples, method, [first])]
    if found:
        tables.append(comparison_table(found))
    if leaks := [item for item in leakages(samples) if item.ratio is not None]:
        tables.append(leakage_table(leaks))
    return "\n\n".join(tables)
