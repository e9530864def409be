"""From records to rows: means by hand, the baseline, and what is refused or noted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results.made_rows import ALL, HALF, QUARTER, setting

from mmlit.results.compare import compare

MakeRun = Callable[..., Path]


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
    assert (found.value, found.image_error) == pytest.approx((37.5, 12.5))
    # Three images differ, by as much: 2^(1 - 3) is the least that flipping their signs can give.
    assert (found.checkpoints, found.methods) == (0.25, None)


def test_methods_are_judged_from_three_seeds_on(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, (low, high) in enumerate(((QUARTER, HALF), (HALF, ALL), (QUARTER, ALL))):
        make_run(f"p{seed}", alignment="projection", seed=seed, **low)
        make_run(f"j{seed}", seed=seed, **high)
    found = (compare([tmp_path]).rows[1].differences or {})["i2t_r1"]
    # Gains of the four images: 0, 66.7, 66.7, 66.7 points.
    assert (found.value, found.image_error) == pytest.approx((50, 100 / 6))
    # Seeds spread by 14.43 points, all of which is the meeting with these images, and by 28.87, of whose square 833.3
    # that is a third (deviations from row and column: 2500 * 2 / 3 over (3 - 1)(4 - 1) degrees of freedom).
    assert found.total_error == pytest.approx((10_000 / 36 + (833.333 - 277.778) / 3) ** 0.5, rel=1e-4)
    assert found.methods_hold is False
    assert found.least is not None
    assert found.least > found.value


def test_pairs_are_in_the_order_of_the_rows(make_run: MakeRun, tmp_path: Path) -> None:
    for name, ranks in (("zebra", HALF), ("best", ALL), ("projection", QUARTER)):
        make_run(name, alignment=name, **ranks)
    comparison = compare([tmp_path])
    rsum = [row.metrics["rsum"].mean for row in comparison.rows]
    assert rsum == [450, 600, 500]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        assert comparison.pairs.value[i, j] == pytest.approx(rsum[i] - rsum[j])
    assert comparison.pairs.families() == (3, 0, 0, 0)


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
        record["config"]["features"] = {"_target_": "store", "half": False}
        record["choices"] |= {"logger": "wandb", "hydra/launcher": "joblib", "features": "store"}

    make_run("b", seed=1, change=elsewhere)
    (row,) = compare([tmp_path]).rows
    assert row.seeds == (0, 1)
    make_run("c", change=lambda record: record["config"].update(features={"half": True}))
    assert len(compare([tmp_path]).rows) == 2


def test_settings_do_make_a_row(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a")
    make_run("b", change=lambda record: record["config"]["optimizer"].update(lr=0.01))
    assert [row.label for row in compare([tmp_path]).rows] == ["optimizer.lr=0.001", "optimizer.lr=0.01"]


def test_tuned_and_default_are_two_rows_and_a_missing_option_is_default(make_run: MakeRun, tmp_path: Path) -> None:
    """Trap 11: tuned against default is said."""

    def tried(number: object) -> Callable[[dict[str, Any]], object]:
        return lambda record: record["config"].update(trials=number)

    make_run("a", seed=0)
    make_run("b", seed=1, change=tried(None))
    make_run("c", seed=0, change=tried(9))
    rows = compare([tmp_path]).rows
    assert [(row.label, row.trials, row.seeds) for row in rows] == [("joint", None, (0, 1)), ("trials=9", 9, (0,))]
    make_run("d", seed=2, change=tried("nine"))
    with pytest.raises(ValueError, match="trials must be a whole number or null, got 'nine'"):
        compare([tmp_path])


def test_a_run_on_other_data_is_no_run_of_its_own(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", seed=0)
    make_run("a/evaluations/coco", seed=0, change=setting("gallery", hash="gallery-b"))
    assert compare([tmp_path]).rows[0].seeds == (0,)
    assert compare([tmp_path / "runs" / "a"]).rows[0].gallery == (4, 8)
    assert not compare([tmp_path]).notes
    # When named, it is what is asked for; and a folder of that name that no run has is only a folder.
    for directory in ("a/evaluations", "a/evaluations/coco"):
        assert len(compare([tmp_path / "runs" / directory]).rows) == 1
    make_run("evaluations/b", alignment="projection")
    assert [row.label for row in compare([tmp_path]).rows] == ["projection", "joint"]


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
    with pytest.raises(ValueError, match=r"runs/a, .*runs/b: text_id differs"):
        compare([tmp_path])
    make_run("c", alignment="projection", seed=1, text_image_id=np.roll([10, 20, 30, 40] * 2, 1))
    with pytest.raises(ValueError, match=r"runs/a, .*runs/c: text_image differs"):
        compare([tmp_path])
