"""Sweeps: what is finished, killed, failed or run by another process; always in processes that are really started."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmlit.run import fit

ROOT = Path(__file__).resolve().parents[2]


def records_of(outputs: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(outputs.glob("*/result.json"))}


def start(command: list[str]) -> subprocess.Popen:
    """In a process group of its own."""
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(what, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_skips_what_is_finished_and_tells_what_failed(sweep, tmp_path):
    """Traps 27 and 28: folders keyed by what runs; finished jobs are skipped, a failed one stops no other."""
    ended = sweep("seed=0,1", "alignment=projection,contrastive")
    assert ended.returncode == 0, ended.stderr
    records = sorted((tmp_path / "sweep").rglob("result.json"))
    assert len(records) == 4
    assert "[4/4]" in ended.stderr
    times = [path.stat().st_mtime_ns for path in records]
    records[0].unlink()
    ended = sweep("seed=0,1", "alignment=projection,contrastive")
    assert ended.returncode == 0, ended.stderr
    assert "4 runs, 3 of them finished before" in ended.stdout
    assert [path.stat().st_mtime_ns for path in records[1:]] == times[1:]
    broken = sweep(
        "seed=0,1", "alignment=contrastive", "data.num_workers=0", "alignment.temperature=0.05", "alignment.dim=0,32"
    )
    assert broken.returncode == 2
    assert "2 of 4 runs failed" in broken.stderr
    assert "dim must be >= 1, got 0" in broken.stderr
    assert len(list((tmp_path / "sweep").rglob("result.json"))) == 6
    table = subprocess.run(
        [sys.executable, "-m", "mmlit.cli", "compare", str(tmp_path / "sweep")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert table.returncode == 0, table.stderr
    assert (tmp_path / "sweep" / "table.md").is_file()
    assert (tmp_path / "sweep" / "comparison.png").is_file()


@pytest.mark.slow
def test_a_plain_multirun_has_a_process_per_job_and_a_dry_run_shows_the_plan(tmp_path, scenes):
    """Trap 26: `-m` without a word about launchers. What is planned is told, and nothing is made."""
    small = [f"data.root={scenes}", "data.batch_size=16", "trainer.max_epochs=1", f"paths.outputs={tmp_path}/out"]
    command = [sys.executable, "train.py", "-m", "seed=0,1", "alignment=projection", *small]

    def ran(*words: str) -> str:
        ended = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
        return ended.stdout

    planned = ran("hydra.launcher.dry_run=true").splitlines()
    assert [line.split()[0] for line in planned[:2]] == ["new", "new"]
    assert [line.split()[2:] for line in planned[:2]] == [["seed=0"], ["seed=1"]]
    assert planned[-1] == "2 runs, 2 of them to do"
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    ran()
    assert {record["seed"] for record in records_of(tmp_path / "out").values()} == {0, 1}
    assert len(list((tmp_path / "out").glob("*/log.txt"))) == 2
    assert "2 runs, 0 of them to do" in ran("hydra.launcher.dry_run=true")


@pytest.mark.slow
def test_an_edited_yaml_changes_no_planned_job(sweep_command, tmp_path):
    sweeps = shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    command = [
        str(sweeps) if word == "sweeps" else word for word in sweep_command("alignment=projection", "seed=0,1,2")
    ]
    yaml = sweeps / "alignments.yaml"
    yaml.write_text(yaml.read_text() + "\noptimizer:\n  lr: 0.0005\n")
    process = start(command)
    wait_for(lambda: list((tmp_path / "sweep").glob("*/status.json")))
    yaml.write_text(yaml.read_text().replace("0.0005", "0.0007"))
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    records = records_of(tmp_path / "sweep").values()
    assert [record["config"]["optimizer"]["lr"] for record in records] == [0.0005] * 3


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(sweep_command, tmp_path):
    """Every run is trained by one of the two, and both end when all is done."""
    both = [start(sweep_command("seed=0,1", "alignment=projection,contrastive", f"resume_minutes={m}")) for m in (1, 2)]
    for process in both:
        told, _ = process.communicate(timeout=300)
        assert process.returncode == 0, told
    assert len(records_of(tmp_path / "sweep")) == 4
    for path in (tmp_path / "sweep").glob("*/log.txt"):
        assert path.read_text().count("ranking ") == 1, path


@pytest.mark.slow
def test_what_another_sweep_finishes_between_look_and_claim_is_kept(train, tmp_path, monkeypatch):
    options = ("hydra.mode=MULTIRUN", "hydra/launcher=basic", "alignment=projection", "trainer.max_epochs=1")
    assert train(*options).code == 0
    (path,) = (tmp_path / "outputs").glob("*/result.json")
    record = path.read_bytes()
    path.unlink()

    def finished_meanwhile() -> None:
        read = fit._read

        def slowly(*arguments):
            cost = read(*arguments)
            path.write_bytes(record)
            return cost

        monkeypatch.setattr(fit, "_read", slowly)

    ended = train(*options, before=finished_meanwhile)
    assert ended.code == 0, ended.err
    assert path.read_bytes() == record
    assert "ranking " not in ended.out + ended.err


@pytest.mark.slow
def test_jobs_end_with_a_sweep_that_is_killed(sweep_command, tmp_path):
    process = start(sweep_command("seed=0,1", "alignment=joint", "trainer.max_epochs=500"))
    wait_for(lambda: len(list((tmp_path / "sweep").glob("*/status.json"))) == 2)
    jobs = [int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()]
    assert len(jobs) == 2
    process.kill()  # the sweep's own process alone
    process.wait()
    wait_for(lambda: not any(_alive(pid) for pid in jobs), 20)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_a_sweep_killed_five_times_ends_with_the_numbers_of_one_that_was_not(sweep_command, tmp_path):
    """Trap 28: `kill -9` of the whole process group at random moments."""
    options = (
        "alignment=joint,cross_attention,contrastive,projection",
        "trainer.max_epochs=12",
        "resume_minutes=0.001",
    )
    undisturbed = start([*sweep_command(*options), f"paths.outputs={tmp_path}/undisturbed"])
    told, _ = undisturbed.communicate(timeout=600)
    assert undisturbed.returncode == 0, told
    moments = random.Random(0)
    for _ in range(5):
        process = start(sweep_command(*options))
        before = len(records_of(tmp_path / "sweep"))
        wait_for(lambda: any("share" in path.read_text() for path in (tmp_path / "sweep").glob("*/status.json")))
        time.sleep(moments.uniform(1, 5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert before <= len(records_of(tmp_path / "sweep")) < 12
    process = start(sweep_command(*options))
    told, _ = process.communicate(timeout=600)
    assert process.returncode == 0, told
    expected, found = records_of(tmp_path / "undisturbed"), records_of(tmp_path / "sweep")
    assert len(expected) == 12
    assert found.keys() == expected.keys()
    for name, record in expected.items():
        assert found[name]["metrics"] == record["metrics"], name
        assert found[name]["budget"] == record["budget"], name
        ranks = [np.load(tmp_path / folder / name / "ranks.npz") for folder in ("undisturbed", "sweep")]
        assert all(np.array_equal(ranks[0][key], ranks[1][key]) for key in ranks[0].files), name
    assert any("goes on from" in path.read_text() for path in (tmp_path / "sweep").glob("*/log.txt"))


@pytest.mark.slow
def test_a_job_on_two_devices_goes_through_torchrun(sweep_command, tmp_path):
    """Trap 26: its processes are workers of the job's own, not copies of the whole sweep."""
    devices = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=8")
    process = start(sweep_command("seed=0", "alignment=contrastive,joint", "hydra.launcher.jobs=1", *devices))
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    records = records_of(tmp_path / "sweep")
    assert len(records) == 2
    for record in records.values():
        assert record["environment"]["device"] == "2 x cpu"
        assert record["budget"]["pairs_seen"] == 96
    process = start(sweep_command("seed=1", "alignment=contrastive", "alignment.dim=-1", *devices))
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "dim must be >= 1, got -1" in told


@pytest.mark.slow
def test_several_devices_are_refused_where_jobs_share_a_process(sweep_command):
    """Trap 26."""
    devices = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    process = start(sweep_command("hydra/launcher=basic", *devices))
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "hydra/launcher=basic runs all jobs in one process" in told


@pytest.mark.slow
def test_a_search_by_optuna_maximizes_val_rsum(tmp_path, scenes):
    """Trap 9: what is searched by is measured on images set aside, and the record's split is not test."""
    small = [f"data.root={scenes}", "data.val=16", "data.batch_size=16", f"paths.outputs={tmp_path}/out"]
    command = [sys.executable, "train.py", "--config-dir", "sweeps", "--config-name", "search", *small]
    command += ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "hydra.sweeper.n_trials=3"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    records = records_of(tmp_path / "out").values()
    assert len(records) == 3
    assert {record["split"] for record in records} == {"val"}
    best = max(record["validation"]["rsum"] for record in records)
    assert f"Best value: {best}" in told.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_hydras_own_launchers_run_and_resume_jobs(tmp_path, scenes, launcher):
    small = [f"data.root={scenes}", "data.batch_size=16", "trainer.max_epochs=1", f"paths.outputs={tmp_path}/out"]
    command = [
        sys.executable,
        "train.py",
        "-m",
        f"hydra/launcher={launcher}",
        "seed=0,1",
        "alignment=projection",
        *small,
    ]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/result.json")}
    assert len(times) == 2
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert {path: path.stat().st_mtime_ns for path in times} == times
