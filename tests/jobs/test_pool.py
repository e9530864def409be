"""Jobs in processes of their own: order, failure, logs, what is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmlit.jobs.pool import Work, run_all
from mmlit.jobs.progress import LiveView, read_status, seconds_left


class Silent:
    """Keeps what it was shown."""

    def __init__(self):
        self.most = 0

    def show(self, running, ended, num_waiting, num_elsewhere):
        self.most = max(self.most, len(running))


def works(tmp_path: Path, *calls) -> list[Work]:
    return [
        Work(f"job{i}", tmp_path / f"job{i}", lambda place, call=call: call(), (tmp_path / f"job{i}" / "done").exists)
        for i, call in enumerate(calls)
    ]


def fail():
    raise ValueError("temperature must be > 0, got 0")


def test_a_failed_job_does_not_stop_the_others(tmp_path):
    def meet():
        """Ends once two processes have been here, so that both must run at once."""
        print("hello")
        (tmp_path / str(os.getpid())).touch()
        until = time.monotonic() + 60
        while len([path for path in tmp_path.iterdir() if path.name.isdigit()]) < 2 and time.monotonic() < until:
            time.sleep(0.01)

    watcher = Silent()
    ended = run_all(works(tmp_path, fail, meet, meet), parallel=2, watcher=watcher)
    outcomes = {outcome.name: outcome.error for outcome in ended}
    assert outcomes["job0"] == "ValueError: temperature must be > 0, got 0"
    assert outcomes["job1"] is None
    assert outcomes["job2"] is None
    assert watcher.most == 2
    assert "hello" in (tmp_path / "job1" / "log.txt").read_text()
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 2  # two processes


@pytest.mark.parametrize("finishes", [True, False])
def test_a_job_that_another_process_works_on_is_waited_for(tmp_path, monkeypatch, finishes):
    """Trap 28: it is run here only if the other ends without finishing it."""
    monkeypatch.setattr("mmlit.jobs.pool._LONG_PAUSE", 0.1)
    (job,) = works(tmp_path, (tmp_path / "ran here").touch)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(job.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "mine\n"
    elsewhere = []

    class Ending(Silent):
        def show(self, running, ended, num_waiting, num_elsewhere):
            elsewhere.append(num_elsewhere)
            if num_elsewhere and holder.poll() is None:
                assert not running
                if finishes:
                    (job.directory / "done").touch()
                holder.communicate("end\n")

    ended = run_all([job], parallel=1, watcher=Ending())
    assert [outcome.error for outcome in ended] == [None]
    assert elsewhere[0] == 1
    assert elsewhere[-1] == 0
    assert (tmp_path / "ran here").exists() != finishes


HOLD = """
import sys, pathlib
from mmlit.jobs.claim import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.readline()
"""


def test_a_killed_job_is_told(tmp_path):
    ended = run_all(works(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL)), parallel=1, watcher=Silent())
    assert "signal 9" in ended[0].error


def test_no_job_outlives_the_sweep(tmp_path):
    class Interrupted(Silent):
        def show(self, running, ended, num_waiting, num_elsewhere):
            while not (tmp_path / "pid").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    def sleep():
        (tmp_path / "half").write_text(str(os.getpid()))
        (tmp_path / "half").rename(tmp_path / "pid")
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run_all(works(tmp_path, sleep), parallel=1, watcher=Interrupted())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_number_of_jobs_is_checked(tmp_path):
    with pytest.raises(ValueError, match="jobs must be >= 1, got 0"):
        run_all([], parallel=0, watcher=Silent())


def test_time_left():
    assert seconds_left([], [], 3, 2) is None
    assert seconds_left([(0.5, 30.0)], [], 0, 2) == pytest.approx(30)
    assert seconds_left([(0.5, 30.0), (0.25, 15.0)], [60.0], 2, 2) == pytest.approx((30 + 45 + 120) / 2)


def test_view_says_which_run_of_how_many(tmp_path, capsys):
    (tmp_path / "job0").mkdir()
    (tmp_path / "job0" / "status.json").write_text('{"epoch": 2, "epochs": 8, "share": 0.3, "val/rsum": 120.0}')
    assert read_status(tmp_path / "job0")["epoch"] == 2
    assert read_status(tmp_path) == {}
    with LiveView(total=12, skipped=3, parallel=2) as view:
        run_all(works(tmp_path, lambda: None, fail), parallel=2, watcher=view)
    said = capsys.readouterr().err
    assert "[4/12]" in said
    assert "[5/12]" in said
    assert "failed: ValueError: temperature must be > 0, got 0" in said


def test_a_failed_job_says_so_in_its_status(tmp_path):
    """`mmlit runs list` reads it: a job that failed at once leaves no record."""
    run_all(works(tmp_path, fail), parallel=1, watcher=Silent())
    assert read_status(tmp_path / "job0") == {"error": "ValueError: temperature must be > 0, got 0"}
