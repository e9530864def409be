"""From records to rows: means by hand, the baseline, and what is refused or noted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlit.results.compare import compare
from mmlit.results.comparison import Difference

MakeRun = Callable[..., Path]

# i2t R@1 and t2i R@1 in percent of four images and eight texts; the others are found second.
QUARTER = {"i2t_rank": (1, 2, 2, 2), "t2i_rank": (1, 1, 2, 2, 2, 2, 2, 2)}
HALF = {"i2t_rank": (1, 1, 2, 2), "t2i_rank": (1, 1, 1, 1, 2, 2, 2, 2)}
ALL = {"i2t_rank": (1, 1, 1, 1), "t2i_rank": (1, 1, 1, 1, 1, 1, 1, 1)}


def setting(part: str, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda record: record[part].update(values)


def test_mean_and_sd_by_hand(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", seed=0, **QUARTER)
    make_run("b", seed=1, **HALF)
    make_run("c", seed=2, **ALL, change=setting("cost", fit_seconds=91.2))
    (row,) = compare([tmp_path]).rows
    assert (row.label, row.seeds) == ("joint", (0, 1, 2))
    # 25, 50, 100: mean 175 / 3, squares of the deviations 2916.67, over n - 1 = 2.
    assert row.metrics["i2t_r1"] == pytest.approx((58.3333, 38.1881, 3), abs=1e-4)
    assert row.metrics["i2t_r5"] == (100, 0, 3)
    # 2, 1.5, 1
    assert row.metrics["i2t_median_rank"] == pytest.approx((1.5, 0.5, 3))
    # 450, 500, 600
    assert row.metrics["rsum"] == pytest.approx((516.6667, 76.3763, 3), abs=1e-4)
    assert row.fit_seconds == pytest.approx((71.2, 17.3205, 3), abs=1e-4)
    assert (row.trainable, row.parameters, row.pairs_seen) == (812345, 912345, (40960, 40960))
    assert (row.scored, row.split, row.gallery, row.differences) == ("full", "test", (4, 8), None)


def test_differences_by_hand(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("p0", alignment="projection", seed=0, **QUARTER)
    make_run("p1", alignment="projection", seed=1, **HALF)
    make_run("j0", seed=0, **HALF)
    make_run("j1", seed=1, **ALL)
    comparison = compare([tmp_path])
    assert [row.label for row in comparison.rows] == ["projection", "joint"]
    found = (comparison.rows[1].differences or {})["i2t_r1"]
    # Hits 1, .5, 0, 0 against 1, 1, .5, .5: gains 0, 50, 50, 50 points, sd 25, error 12.5.
    assert (found.value, found.query_error) == pytest.approx((37.5, 12.5))
    # sd of 25, 50 is 17.678, of 50, 100 is 35.355; their squares over 2 are 156.25 and 625.
    assert found.combined_error == pytest.approx((12.5**2 + 156.25 + 625) ** 0.5)
    assert found.verdict == "inside"


def test_one_seed_gives_no_spread(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("p", alignment="projection", **QUARTER)
    make_run("j0", seed=0, **ALL)
    make_run("j1", seed=1, **ALL)
    base, row = compare([tmp_path]).rows
    assert base.metrics["rsum"] == (450, None, 1)
    found = (row.differences or {})["rsum"]
    assert found.combined_error is None
    assert found.verdict == "unknown"


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (Difference(2.1, 0.5, 1.0), "holds"),
        (Difference(-2.1, 0.5, 1.0), "holds"),
        (Difference(1.9, 0.5, 1.0), "inside"),
        (Difference(0.9, 0.5, None), "inside"),
        (Difference(1.1, 0.5, None), "unknown"),
        (Difference(0.0, 0.0, 0.0), "inside"),
        (Difference(1.0, 0.0, 0.0), "holds"),
    ],
)
def test_verdicts(difference: Difference, verdict: str) -> None:
    assert difference.verdict == verdict


def test_rows_are_ordered_by_baseline_then_rsum_then_label(make_run: MakeRun, tmp_path: Path) -> None:
    for name, ranks in (("zebra", HALF), ("apple", HALF), ("best", ALL), ("projection", QUARTER)):
        make_run(name, alignment=name, **ranks)
    assert [row.label for row in compare([tmp_path]).rows] == ["projection", "best", "apple", "zebra"]
    chosen = compare([tmp_path], baseline="zebra")
    assert [row.label for row in chosen.rows] == ["zebra", "best", "apple", "projection"]
    assert chosen.baseline == "zebra"
    with pytest.raises(
        ValueError, match="no row 'lion' to be the baseline; the rows are: apple; best; projection; zebra"
    ):
        compare([tmp_path], baseline="lion")


def test_the_default_baseline(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("b", alignment="joint", change=setting("choices", text_encoder="bert"))
    first = make_run("a", alignment="contrastive", change=setting("choices", text_encoder="tiny"))
    assert compare([tmp_path]).baseline == "contrastive, text_encoder=tiny"
    assert compare([tmp_path / "runs" / "b", first]).baseline == "joint, text_encoder=bert"
    make_run("c", alignment="projection", change=setting("choices", text_encoder="bert"))
    assert compare([tmp_path]).baseline == "projection, text_encoder=bert"


def test_machine_matters_make_no_row(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", seed=0)

    def elsewhere(record: dict[str, Any]) -> None:
        record["config"]["data"] |= {"root": "/elsewhere/scenes", "num_workers": 16}
        record["config"]["logger"] = {"_target_": "wandb"}
        record["choices"] |= {"logger": "wandb", "hydra/launcher": "joblib"}

    make_run("b", seed=1, change=elsewhere)
    (row,) = compare([tmp_path]).rows
    assert row.seeds == (0, 1)


def test_settings_do_make_a_row(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a")
    make_run("b", change=lambda record: record["config"]["optimizer"].update(lr=0.01))
    assert [row.label for row in compare([tmp_path]).rows] == ["optimizer.lr=0.001", "optimizer.lr=0.01"]


def test_the_newer_of_two_runs_with_one_seed_counts(make_run: MakeRun, tmp_path: Path) -> None:
    new = make_run("a", **ALL, change=lambda record: record.update(finished="2026-11-22T00:00:00+00:00"))
    old = make_run("b", **QUARTER)
    comparison = compare([tmp_path])
    assert comparison.rows[0].metrics["i2t_r1"] == (100, None, 1)
    assert comparison.notes == (f"Seed 0 twice: {new} counts, the older {old} does not.",)


def test_a_run_found_twice_is_one_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a")
    comparison = compare([tmp_path, run, tmp_path / "runs" / ".." / "runs"])
    assert comparison.rows[0].seeds == (0,)
    assert not comparison.notes


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


def test_full_and_reranked_share_a_table(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 11: both rank the same gallery; a column says which."""
    make_run("a", alignment="projection")
    make_run("b", change=lambda record: record.update(scored="rerank@32"))
    assert [row.scored for row in compare([tmp_path]).rows] == ["full", "rerank@32"]


def test_what_else_differs_is_noted(make_run: MakeRun, tmp_path: Path) -> None:
    def other(record: dict[str, Any]) -> None:
        record["code"] |= {"commit": None, "hash": "code-b", "dirty": True}
        record["environment"]["threads"] = 8
        record["selection"] = "last epoch"
        record["config"]["optimizer"]["lr"] = 0.1

    make_run("a", alignment="joint", change=setting("cost", fit_seconds=1.0))
    make_run("b", alignment="projection", seed=1, change=other)
    assert compare([tmp_path]).notes == (
        "Selection rule differs: best val/rsum in joint; last epoch in projection.",
        "Code differs: code-a (commit abc123) in joint; code-b (no commit) in projection.",
        "Machine (mind the seconds) differs: cpu, 2 threads in joint; cpu, 8 threads in projection.",
        "Run with uncommitted changes: projection.",
        "Seeds differ: 0 in joint; 1 in projection.",
        "optimizer.lr differs: 0.001 in joint; 0.1 in projection.",
    )


def test_epochs_chosen_by_one_rule_are_no_difference(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", seed=0)
    make_run("b", seed=1, change=lambda record: record.update(selection="best val/rsum, epoch 3"))
    assert not compare([tmp_path]).notes


def test_nothing_to_compare_is_an_error_that_names_the_directory(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no result\.json below .*empty"):
        compare([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="nowhere is not a directory"):
        compare([tmp_path / "nowhere"])
    (make_run("a") / "ranks.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"a/ranks\.npz is missing"):
        compare([tmp_path])


def test_ranks_of_another_run_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run("a", **HALF), make_run("b", seed=1, **ALL)
    (run / "ranks.npz").write_bytes((other / "ranks.npz").read_bytes())
    with pytest.raises(ValueError, match=r"a/ranks\.npz gives i2t_r1 100\.00, result\.json beside it 50\.00"):
        compare([tmp_path])


def test_ranks_of_other_queries_in_one_gallery_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", alignment="projection")
    make_run("b", text_id=range(11, 19))
    with pytest.raises(ValueError, match=r"runs/b, .*runs/a: text_id differs"):
        compare([tmp_path])
    make_run("c", alignment="projection", seed=1, text_image_id=np.roll([10, 20, 30, 40] * 2, 1))
    with pytest.raises(ValueError, match=r"runs/a, .*runs/c: text_image differs"):
        compare([tmp_path])
