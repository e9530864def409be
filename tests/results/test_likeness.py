"""Which rows may stand in one table, and which are refused unless told otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results.made_rows import HALF, QUARTER, setting

from mmlit.results.compare import compare
from mmlit.results.likeness import differs

MakeRun = Callable[..., Path]

UNLIKE = [
    (
        setting("gallery", hash="gallery-b"),
        r"gallery differs: 4 images, 8 texts \(gallery-a\) in joint; 4 im",
    ),
    (setting("protocol", name="coco_1k"), "protocol differs: ks .*name retrieval.* in joint; .*name coco_1k"),
    (setting("protocol", folds=5), "protocol differs: .* in joint; folds 5"),
    (setting("data", hash="data-b"), "data differs: data-a, trained on .* in joint; data-b"),
    (setting("data", train_pairs=1), "data differs: .*; data-a, trained on 1 pairs"),
    (setting("budget", pairs_seen=81920), "pairs seen differs: 40,960 in joint; 81,920 in projection"),
    (lambda record: record.update(split="val"), "split differs: test in joint; val in projection"),
]


@pytest.mark.parametrize(("change", "message"), UNLIKE)
def test_unlike_rows_are_refused_unless_told_otherwise(
    make_run: MakeRun, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    """Trap 11: another split, gallery, protocol, data or budget."""
    make_run("a", alignment="joint")
    make_run("b", alignment="projection", change=change)
    with pytest.raises(ValueError, match=f"^unlike rows: {message}.*--allow-unlike"):
        compare([tmp_path])
    notes = compare([tmp_path], allow_unlike=True).notes
    assert any(note.startswith("Unlike rows: ") for note in notes)


def test_many_long_labels_are_cut_and_counted() -> None:
    """What `mmlit compare outputs` over everything finds must be read at a glance."""
    labels = [f"alignment {i}, {'x' * 200}" for i in range(300)]
    told = differs("split", {"test": labels, "val": labels[:5], "all": [labels[0][:60]]})
    first = f"alignment 0, {'x' * 46}…"
    assert told.startswith(f"split differs: test in {first}, alignment 1, ")
    assert "… and 295 more; val in " in told
    assert told.endswith(f"; all in {labels[0][:60]}")
    assert len(told) < 800
    many = differs("gallery", {f"gallery {i}": ["joint"] for i in range(7)})
    assert many.endswith("gallery 4 in joint; and 2 more values")


def test_respects_follow_one_another_and_end_with_what_to_do(make_run: MakeRun, tmp_path: Path) -> None:
    def elsewhere(record: dict[str, Any]) -> None:
        record["split"] = "val"
        record["budget"]["pairs_seen"] = 1

    make_run("a", alignment="joint")
    make_run("b", alignment="projection", change=elsewhere)
    with pytest.raises(ValueError, match="unlike rows") as refusal:
        compare([tmp_path])
    assert str(refusal.value) == (
        "unlike rows: split differs: test in joint; val in projection. pairs seen differs: 40,960 in joint; 1 in "
        "projection. Name the folders that belong together, or compare them all the same with --allow-unlike"
    )


def test_other_queries_are_not_paired(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 11, when told to compare nevertheless."""
    make_run("a", alignment="projection")
    make_run("b", change=setting("gallery", hash="gallery-b"), text_id=range(11, 19))
    assert [row.differences for row in compare([tmp_path], allow_unlike=True).rows] == [None, None]


def test_unlike_runs_of_one_setting_do_not_mix(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 11, within what would be one row."""
    make_run("a", seed=0)
    make_run("b", seed=1, change=lambda record: record.update(split="val"))
    with pytest.raises(ValueError, match="split differs: test in split=test; val in split=val"):
        compare([tmp_path])
    rows = compare([tmp_path], allow_unlike=True).rows
    assert [(row.label, row.split) for row in rows] == [("split=test", "test"), ("split=val", "val")]


def test_seeds_that_stopped_at_different_times_are_unlike(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 11: a mean over budgets is of no budget."""
    make_run("a", seed=0)
    make_run("b", seed=1, change=setting("budget", pairs_seen=20480))
    with pytest.raises(ValueError, match="pairs seen differs: 40,960 in joint; 20,480 in joint"):
        compare([tmp_path])
    assert compare([tmp_path], allow_unlike=True).rows[0].pairs_seen == (20480, 40960)


def published(record: dict[str, Any]) -> None:
    """Weights that somebody else trained: nothing seen here, other data, hardly a configuration."""
    record["budget"] = {"epochs": 0, "steps": 0, "pairs_seen": 0}
    record["data"] = {"hash": "none", "train_pairs": 0, "train_images": 0}
    record["selection"] = "published weights"
    record["config"] = {"seed": 0}
    record["choices"] = {"alignment": "clip"}


def test_what_was_not_trained_here_may_stand_beside_what_was(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 11: such rows have no budget; gallery and protocol must agree nevertheless."""
    for seed in (0, 1, 2):
        make_run(f"p{seed}", alignment="projection", seed=seed, **QUARTER)
        make_run(f"j{seed}", seed=seed, **HALF, change=lambda record: record["config"]["optimizer"].update(lr=0.1))
    make_run("clip", change=published)
    comparison = compare([tmp_path])
    assert [row.label for row in comparison.rows] == ["projection", "clip", "joint"]
    assert comparison.notes == (
        "Not trained here (0 pairs seen), so that data and pairs seen need not agree: clip. Such a row of one run is "
        "one fixed model: there is no other seed of it.",
        "optimizer.lr differs: 0.1 in joint; 0.001 in projection.",
    )
    assert "40,960 pairs seen" in comparison.subject
    found = (comparison.rows[1].differences or {})["rsum"]
    assert found.total_error is not None
    make_run("other", alignment="contrastive", change=setting("budget", pairs_seen=1))
    with pytest.raises(ValueError, match="pairs seen differs: 40,960 in joint, projection; 1 in contrastive"):
        compare([tmp_path])


@pytest.mark.parametrize("part", ["gallery", "protocol"])
def test_what_was_not_trained_here_must_rank_the_same(make_run: MakeRun, tmp_path: Path, part: str) -> None:
    """Trap 11."""
    make_run("a", alignment="projection")

    def elsewhere(record: dict[str, Any]) -> None:
        published(record)
        record[part] |= {"hash": "gallery-b"} if part == "gallery" else {"name": "coco_1k"}

    make_run("clip", change=elsewhere)
    with pytest.raises(ValueError, match=f"unlike rows: {part} differs"):
        compare([tmp_path])


def test_full_and_reranked_share_a_table(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 11: both rank the same gallery; a column says which."""
    make_run("a", alignment="projection")
    make_run("b", change=lambda record: record.update(scored="rerank@32"))
    assert [row.scored for row in compare([tmp_path]).rows] == ["full", "rerank@32"]
