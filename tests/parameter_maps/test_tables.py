"""The tables in the READMEs of the parameter maps and of the models."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "tables"


@pytest.fixture(scope="module")
def tables():
    loader = SourceFileLoader("tables", str(TOOL))
    module = module_from_spec(spec_from_loader("tables", loader))
    loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_components(tables):
    text = tables.README.read_text(encoding="utf-8")
    assert text == tables.with_tables(text), "run python tools/tables"


def test_the_tables_change_nothing_else(tables):
    text = f"before\n{tables.BEGIN}\nstale\n{tables.END}\nafter\n"
    assert tables.with_tables(text).startswith(f"before\n{tables.BEGIN}\n")
    assert tables.with_tables(text).endswith(f"{tables.END}\nafter\n")
    assert "stale" not in tables.with_tables(text)


def test_a_key_stands_once_for_each_meaning_with_who_reads_it(tables):
    rows = [row for row in tables.lines() if row.startswith("| `FixedImageBSplineInterpolationOrder` |")]
    assert len(rows) == 1
    assert "`RandomCoordinate`" in rows[0]
    assert "Full" not in rows[0]


def test_the_table_of_models_is_that_of_the_cards(tables):
    text = tables.MODELS.read_text(encoding="utf-8")
    assert text == tables.with_models(text), "run python tools/tables"


def test_a_model_has_a_row_with_what_is_known(tables):
    rows = [row for row in tables.models() if row.startswith("| `TS/M258.pt` |")]
    assert rows == [
        "| `TS/M258.pt` | 3D, 1 channel | 32, 64, 128, 256, 320, 320, 32, 3 | 1, 2, 4, 8, 16, 32×16×32, 1, 1 "
        "| 5, 11, 23, 47, 95, 191×159×191, –, – |  | CT; lung vessels |"
    ]
