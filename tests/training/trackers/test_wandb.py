"""wandb without a network: what lies in its file afterwards."""

from pathlib import Path

import pytest
from training.trackers.conftest import in_child
from training.trackers.wandb_file import OfflineRun, read_offline

from mmlit.training.trackers.wandb import WandbTracker


def tracker(run, **options) -> WandbTracker:
    return WandbTracker(**{"project": "mmlit", "offline": True, "log_checkpoint": True, **options}, run=run)


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def written(directory: Path) -> OfflineRun:
    (path,) = files(directory)
    return read_offline(path)


def test_everything_is_in_the_file(tracked, picture, tmp_path):
    run, result, checkpoint = tracked(), tmp_path / "result.json", tmp_path / "best.ckpt"
    result.write_text("{}")
    checkpoint.write_bytes(b"weights")

    def track() -> None:
        own = tracker(run)
        own.log_hyperparams(run.parameters)
        for step in (4, 9):
            own.log_metrics({"train/loss": step / 2, "epoch": 0}, step)
        own.log_pictures({"test/attention": picture}, 10)
        own.log_result([result], checkpoint, {"rsum": 123.0})
        own.close(False)

    in_child(track)
    found = written(run.directory)
    assert found.run.run_id == "alignments-scenes-joint-seed0-0123456789ab"
    assert (found.run.project, found.run.display_name, found.run.run_group, found.run.job_type) == (
        "mmlit", run.name, "alignments", "joint",
    )  # fmt: skip
    assert list(found.run.tags) == ["data=scenes", "alignment=joint"]
    assert found.config.items() >= run.parameters.items()
    assert [(row["trainer/global_step"], row["train/loss"]) for row in found.history if "train/loss" in row] == [
        (4, 2.0), (9, 4.5),
    ]  # fmt: skip
    (shown,) = [row for row in found.history if "test/attention.count" in row]
    assert (shown["trainer/global_step"], shown["test/attention.count"]) == (10, 1)
    assert (shown["test/attention.width"], shown["test/attention.height"]) == (40, 30)
    assert [row["test/metrics.nrows"] for row in found.history if "test/metrics.nrows" in row] == [1]
    assert ("result", ["result.json"]) in found.artifacts
    assert ("model", ["best.ckpt"]) in found.artifacts
    assert found.exit_codes == [0]


def test_runs_of_one_process_stay_apart(tracked):
    """Trap 30: two runs in one process, the first one failed."""
    runs = [tracked(name=f"scenes-joint-seed{seed}-0123456789ab") for seed in (0, 1)]

    def track() -> None:
        for run in runs:
            own = tracker(run)
            own.log_metrics({"train/loss": 1.0}, 0)
            own.close(run is runs[0])

    in_child(track)
    found = [written(run.directory) for run in runs]
    assert [one.run.display_name for one in found] == [run.name for run in runs]
    assert [len([row for row in one.history if "train/loss" in row]) for one in found] == [1, 1]
    assert [one.exit_codes for one in found] == [[1], [0]]


def test_one_offline_run_leaves_the_next_online(tracked, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    import os

    first = tracker(tracked())
    assert first._wandb_init["mode"] == "offline"
    assert "WANDB_MODE" not in os.environ
    assert tracker(tracked(), offline=False)._wandb_init["mode"] is None


@pytest.mark.parametrize(("resumed_step", "resume"), [(None, None), (12, "allow")])
def test_a_run_that_goes_on_is_the_same_one(tracked, resumed_step, resume):
    """Trap 28; one that begins anew replaces what the server has of it."""
    first, again = tracker(tracked()), tracker(tracked(resumed_step=resumed_step))
    assert again._wandb_init["id"] == first._wandb_init["id"]
    assert again._wandb_init["resume"] == resume


def test_long_names_keep_what_tells_runs_apart(tracked):
    name = "a-data-set-with-a-very-long-name-indeed-cross_attention-seed10-0123456789ab"
    own = tracker(tracked(name=name))._wandb_init["id"]
    assert len(own) <= 64
    assert own.endswith("seed10-0123456789ab")
