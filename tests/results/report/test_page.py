"""The page as a file: complete, right for many runs, and deaf to what stands in records."""

import base64
import csv
import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlit.results.compare import compare
from mmlit.results.latex import latex
from mmlit.results.pictures import COLUMNS, file_name
from mmlit.results.report.page import page
from mmlit.results.spreadsheet import comma_separated

MakeRun = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[3]
EVIL = "</td><script>alert(1)</script><img src=x onerror=alert(2)>&\"'$x$"


class Seen(HTMLParser):
    """Every element that a browser would make, and all text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data


@pytest.fixture(scope="session")
def benchmark_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_benchmark", ROOT / "benchmarks" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def evil(make_run: MakeRun, folder: Path) -> None:
    """Two rows with markup wherever a user or an annotator can put it."""
    for name, rate in (("a", EVIL), ("b", "b")):
        for seed in range(3):

            def change(record: dict[str, Any], rate: str = rate) -> None:
                record["config"]["optimizer"]["name"] = rate
                record["config"]["data"]["folder"] = f"/data/{EVIL}"
                record["overrides"] = [f"optimizer.name={rate}", f"data.root=/data/{EVIL}"]
                record["environment"]["device"] = EVIL
                record["diagnostics"] = {EVIL: 1.0}
                curve = {"step": [1, 2], "epoch": [1, 1], "value": [2.0, 1.0]}
                record["curves"] = {"train/loss": curve, "val/rsum": curve}

            ranks = {"t2i_rank": (1,) * 8} if name == "a" else {"t2i_rank": (4,) * 8}
            tops = np.tile([10, 20, 30, 40, *[-1] * 6], (8, 1))
            make_run(f"{name}{seed}", seed=seed, change=change, t2i_top=tops, **ranks)
    (folder / "galleries").mkdir()
    columns = ([10], [None], [[1, 2]], [[EVIL, "fine"]])
    table = pa.table(
        [pa.array(columns[0]), pa.array(columns[1], pa.binary()), *map(pa.array, columns[2:])], list(COLUMNS)
    )
    pq.write_table(table, folder / "galleries" / file_name("data-a", "gallery-a"))


def test_what_records_and_captions_say_stays_text(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 36: in a caption, an override, a data root, a setting, a diagnostic's name, in every file."""
    evil(make_run, tmp_path / "runs")
    comparison = compare([tmp_path / "runs"])
    text = page(comparison, [tmp_path / "runs"])
    seen = Seen(text)
    assert [tag for tag, _ in seen.tags].count("script") == 1
    assert not {tag for tag, _ in seen.tags} & {"img", "iframe", "object", "base", "form"}
    assert not [key for _, attributes in seen.tags for key in attributes if key.startswith("on")]
    assert f"“{EVIL}”" in seen.text, "the caption itself"
    assert seen.text.count("<script>alert(1)</script>") > 8
    assert "<script>alert" not in text
    table = latex(comparison)
    assert r"\textless{}script\textgreater{}alert(1)" in table
    assert r"\&\textquotedbl{}'\$x\$" in table
    lines = list(csv.DictReader(io.StringIO(comma_separated(comparison))))
    assert {line["row"] for line in lines} == {row.label for row in comparison.rows}
    assert f"optimizer.name={EVIL}" in lines[0]["row"] + lines[1]["row"]


def test_a_label_is_no_formula_in_a_spreadsheet(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 36: a cell that begins with = is run by a spreadsheet."""
    for name, alignment in (("p", "projection"), ("e", '=HYPERLINK("http://x")')):
        make_run(name, alignment=alignment)
    lines = comma_separated(compare([tmp_path / "runs"])).splitlines()
    assert lines[2].startswith("\"'=HYPERLINK")


def test_nothing_is_fetched_and_only_its_own_script_may_run(make_run: MakeRun, tmp_path: Path) -> None:
    for name, alignment in (("p", "projection"), ("j", "joint")):
        make_run(name, alignment=alignment)
    text = page(compare([tmp_path / "runs"]), [tmp_path / "runs"])
    addresses = set(re.findall(r"(?:src|href)=\"([^\"]*)\"", text)) | set(re.findall(r"url\(([^)]*)\)", text))
    assert not [each for each in addresses if not each.startswith(("#", "data:"))]
    assert "@import" not in text
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text.replace("&#39;", "'")


def test_a_large_grid(benchmark_file: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 rows of 200 runs: all in the table, ids unique, curves of some, effects of every option."""
    monkeypatch.setattr(benchmark_file, "IMAGES", 40)
    assert benchmark_file.write_runs(tmp_path / "runs", seeds=2) == 200
    comparison = compare([tmp_path / "runs"])
    text = page(comparison, [tmp_path / "runs"])
    seen = Seen(text)
    ids = [attributes["id"] for _, attributes in seen.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for tag, attributes in seen.tags if tag == "a"}
    assert {str(target)[1:] for target in targets} <= set(ids)
    table = text[text.index('aria-label="Main table"') :]
    lines = re.findall(r"<tr>.*?</tr>", table[: table.index("</table>")], re.DOTALL)
    assert len(lines) == 101
    best = max(comparison.rows, key=lambda row: row.metrics["rsum"].mean)
    found = next(line for line in lines if f'data-sort="{best.metrics["rsum"].mean}"' in line)
    assert f"{best.metrics['rsum'].mean:.1f} ± {best.metrics['rsum'].sd:.1f}" in found
    assert best.label.replace("optimizer.", "") in found
    for option in ("alignment", "optimizer.lr", "optimizer.weight_decay"):
        assert f"<code>{option}</code>: " in text
    assert "python train.py -m alignment=joint optimizer.lr=0.0001 optimizer.weight_decay=0.0 seed=0,1" in text
    assert len(text) < 3_000_000


def test_one_row_and_later_evaluations(make_run: MakeRun, tmp_path: Path) -> None:
    place = make_run("j")
    text = page(compare([tmp_path / "runs"]), [tmp_path / "runs"])
    assert "Nothing to choose from: joint" in text
    assert 'id="queries"' not in text
    assert 'id="curves"' not in text
    record = json.loads((place / "result.json").read_text())
    entry = {
        "evaluator": "probe", "data": None, "split": None, "scored": "full", "protocol": {}, "counts": {"pairs": 7},
        "fingerprint": "f", "metrics": {"accuracy": 61.25}, "seconds": 1.0, "options": {}, "folder": "evaluations/p",
        **{key: record[key] for key in ("environment", "code", "finished")},
    }  # fmt: skip
    (place / "result.json").write_text(json.dumps({**record, "evaluations": [entry]}))
    text = page(compare([tmp_path / "runs"]), [tmp_path / "runs"])
    assert "7 pairs" in text
    assert 'data-sort="61.25"' in text


def test_strategies_are_told_in_the_words_of_their_files(make_run: MakeRun, tmp_path: Path) -> None:
    for name, alignment in (("p", "projection"), ("j", "joint"), ("o", "../../README")):
        make_run(name, alignment=alignment)
    text = Seen(page(compare([tmp_path / "runs"]), [tmp_path / "runs"])).text
    line = (ROOT / "conf" / "alignment" / "joint.yaml").read_text().splitlines()[0].removeprefix("# ")
    assert line in text
