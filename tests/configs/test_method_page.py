"""docs/methods.md is what the alignments' docstrings and the records say."""

import shutil
from pathlib import Path

import pytest

from mmlit.configuration.method_page import method_page

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results" / "methods.csv"


def sections(page: str) -> dict[str, str]:
    return {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}


def test_what_is_on_the_page_is_up_to_date():
    """A method that is not on it yet is nobody's mistake: `make docs` adds it."""
    written, made = (sections(page) for page in ((ROOT / "docs" / "methods.md").read_text(), _page()))
    assert written
    assert {name: made[name] for name in written} == written, "run `make docs`"


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "alignment").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_alignment_has_a_row_and_says_where_it_comes_from(file):
    page = _page()
    assert page.count(f"| [`{file.stem}`](#{file.stem}) |") == 1
    assert "**Source**: " in sections(page)[file.stem]


def test_numbers_are_those_of_the_records(tmp_path):
    records = shutil.copy(RECORDS, tmp_path / "methods.csv")
    head, first, *rest = records.read_text().splitlines()
    changed = dict(zip(head.split(","), first.split(","), strict=True)) | {"rsum_mean": "543.21", "rsum_sd": "9.87"}
    records.write_text("\n".join([head, ",".join(changed.values()), *rest]))
    assert f"| [`{changed['row']}`](#{changed['row']}) | 543.2 ± 9.9 |" in method_page(ROOT / "conf", records)


def _page() -> str:
    return method_page(ROOT / "conf", RECORDS)
