"""`result.json`: what is written comes back, and everything else is refused by file and key."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mmlit.results.record import SCHEMA_VERSION, read_record, write_record


def test_round_trip(tmp_path: Path, record: dict[str, Any]) -> None:
    record["metrics"]["modality_gap"] = 0.5
    path = write_record(tmp_path / "run", record)
    assert path == tmp_path / "run" / "result.json"
    assert json.loads(path.read_text()) == record
    read = read_record(path)
    assert read.schema_version == SCHEMA_VERSION == 1
    assert read.metrics.rsum == 600
    assert read.code.commit == "abc123"
    assert read.config == record["config"]


def test_no_commit_and_a_list_of_choices_are_fine(tmp_path: Path, record: dict[str, Any]) -> None:
    record["code"]["commit"] = None
    record["choices"] |= {"auxiliary": ["tags", "self_supervised"], "experiment": None}
    assert read_record(write_record(tmp_path, record)).choices["auxiliary"] == ["tags", "self_supervised"]


def test_curves_come_back_and_take_a_line_each(tmp_path: Path, record: dict[str, Any]) -> None:
    curve = {"step": [1, 2], "epoch": [1, 1], "value": [-0.5, 2e-7]}
    record |= {"curves": {"train/loss": curve}, "launch": {"config_name": "config", "config_dirs": ["[\n 1]"]}}
    path = write_record(tmp_path, record)
    assert json.loads(path.read_text()) == record
    assert '"step": [1, 2],\n' in path.read_text()
    assert read_record(path).curves["train/loss"].value == [-0.5, 2e-7]


def test_a_curve_has_whole_points(tmp_path: Path, record: dict[str, Any]) -> None:
    record["curves"] = {"train/loss": {"step": [1, 2], "epoch": [1], "value": [0.5, 0.4]}}
    with pytest.raises(ValueError, match=r"curves.train/loss: .*2 steps, 1 epochs and 2 values"):
        write_record(tmp_path, record)


def test_times_compare_between_zones(tmp_path: Path, record: dict[str, Any]) -> None:
    early = read_record(write_record(tmp_path, record | {"finished": "2026-11-21T05:00:00+02:00"}))
    late = read_record(write_record(tmp_path, record | {"finished": "2026-11-21T04:00:00+00:00"}))
    assert early.finished_at < late.finished_at


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("metrics.i2t_r1", math.nan, "metrics.i2t_r1: .*finite"),
        ("metrics.i2t_r1", math.inf, "metrics.i2t_r1: .*finite"),
        ("metrics.modality_gap", math.nan, "metrics.modality_gap: .*finite"),
        ("metrics.i2t_r1", 100.5, "metrics.i2t_r1: .*100"),
        ("metrics.t2i_median_rank", 0.0, "metrics.t2i_median_rank: .*1"),
        ("metrics.rsum", "600", "metrics.rsum: .*number"),
        ("budget.pairs_seen", 1.5, "budget.pairs_seen: .*integer"),
        ("gallery.images", 0, "gallery.images: "),
        ("seed", True, "seed: .*integer"),
        ("scored", "half", "scored: "),
        ("scored", "rerank@0", "scored: "),
        ("finished", "2026-11-21T05:10:11", "finished: .*time zone"),
        ("finished", "yesterday", "finished: "),
        ("splitt", "test", "splitt: Extra"),
        ("code.branch", "main", "code.branch: Extra"),
        ("config.path", Path("/data"), "not plain JSON"),
        ("config.lr", math.nan, "not plain JSON"),
    ],
)
def test_wrong_values_are_refused_by_file_and_key(
    tmp_path: Path, record: dict[str, Any], key: str, value: object, message: str
) -> None:
    inner = record
    *outer, last = key.split(".")
    for part in outer:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(ValueError, match=f"result.json: {message}"):
        write_record(tmp_path, record)
    assert not list(tmp_path.iterdir())


def test_every_missing_key_is_named(tmp_path: Path, record: dict[str, Any]) -> None:
    del record["split"], record["metrics"]["rsum"], record["schema"]
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"result.json: schema: .*; split: .*; metrics.rsum: Field required"):
        read_record(tmp_path / "result.json")


def test_nan_in_a_file_is_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    """Trap 2, one stage later: a record must not carry what the evaluator refuses."""
    record["metrics"]["rsum"] = math.nan
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"result\.json: metrics\.rsum: .*finite"):
        read_record(tmp_path / "result.json")


def test_another_version_is_refused_by_name(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "result.json").write_text(json.dumps(record | {"schema": 7, "news": 1}))
    with pytest.raises(ValueError, match=r"result\.json of version 7; this mmlit reads version 1$"):
        read_record(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1, ', "broken JSON: .*line 1"),
        (b"", "broken JSON"),
        (b"\xff\xfe", "broken JSON"),
        (b"[1]", "expected a JSON object, got list"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"result.json: {message}"):
        read_record(tmp_path / "result.json")


def test_a_refused_record_leaves_the_old_one(tmp_path: Path, record: dict[str, Any]) -> None:
    """Trap 34."""
    path = write_record(tmp_path, record)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="seed"):
        write_record(tmp_path, record | {"seed": "one"})
    assert path.read_bytes() == before
