"""docs/methods.md is what the docstrings and the records say."""

import shutil
from pathlib import Path

import pytest

from mmlit.configuration.method_page import method_page

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
CHOICES = sorted(file for group in ("alignment", "auxiliary") for file in (ROOT / "conf" / group).glob("*.yaml"))


def sections(page: str) -> dict[str, str]:
    return {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}


def test_what_is_on_the_page_is_up_to_date():
    """A method that is not on it yet is nobody's mistake: `make docs` adds it."""
    written, made = (sections(page) for page in ((ROOT / "docs" / "methods.md").read_text(), _page()))
    assert written
    assert {name: made[name] for name in written} == written, "run `make docs`"


@pytest.mark.parametrize("file", CHOICES, ids=lambda file: file.stem)
def test_every_method_has_a_row_and_says_where_it_comes_from(file):
    page = _page()
    assert page.count(f"| [`{file.stem}`](#{file.stem}) |") == 1
    assert "**Source**: " in sections(page)[file.stem]
    assert "**Args**" not in sections(page)[file.stem]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("methods", "| [`{row}`](#{row}) | 543.2 ± 9.9 |"),
        ("methods_flickr8k", " | 543.2 ± 9.9 | "),
        ("flickr8k", " | 543.2 ± 9.9 | "),
        ("contrastive_options", "| 543.2 ± 9.9 | "),
        ("auxiliaries", "| 543.2 ± 9.9 | "),
    ],
)
def test_numbers_are_those_of_the_records(tmp_path, table, line):
    results = shutil.copytree(RESULTS, tmp_path / "results")
    head, *rest, first = (results / f"{table}.csv").read_text().splitlines()  # the last row, in any place
    names, cells = head.split(","), first.split('"')[-1].split(",")  # a label with commas stands between quotes
    values = dict(zip(reversed(names), reversed(cells), strict=False)) | {"rsum_mean": "543.21", "rsum_sd": "9.87"}
    label = first.split('"')[1] if '"' in first else cells[0]
    changed = ",".join([f'"{label}"', *(values[name] for name in names[1:])])
    (results / f"{table}.csv").write_text("\n".join([head, *rest, changed]))
    assert line.format(row=label) in method_page(ROOT / "conf", results)


def _page() -> str:
    return method_page(ROOT / "conf", RESULTS)
