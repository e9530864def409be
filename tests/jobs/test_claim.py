"""One process at a time on a run's folder."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mmlit.jobs.claim import ClaimedError, claimed, is_claimed

HOLD = """
import sys, time, pathlib
from mmlit.jobs.claim import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path):
    """Trap 27: two commands on one folder; a killed one leaves nothing that locks the next out."""
    run = tmp_path / "run"
    assert not is_claimed(run)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "mine\n"
    assert is_claimed(run)
    with pytest.raises(ClaimedError, match=f"{run}: another process works on this run"), claimed(run):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    until = time.monotonic() + 10
    while is_claimed(run) and time.monotonic() < until:
        time.sleep(0.05)
    with claimed(run):
        pass
    assert not is_claimed(run)
