"""The tuning sweeps, the choice, and the tuned row in the table, as a user goes through them."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_from_trials_to_a_tuned_row(scenes, tmp_path):
    """Trap 9: trials are compared on images set aside or on val, the chosen options are reported on test."""
    small = [
        f"data.root={scenes}", "data.batch_size=16", "trainer.max_epochs=1",
        "trainer.check_val_every_n_epoch=1", "image_encoder.dim=32", "text_encoder.dim=32", "alignment.dim=32",
    ]  # fmt: skip

    def ran(*words: str) -> str:
        command = [sys.executable, *words]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    trials = [*small, f"paths.outputs={tmp_path}/tune", "data.val=16"]
    ran("train.py", "--config-dir", "sweeps", "--config-name", "tune", "alignment=contrastive", *trials)
    ran("train.py", "--config-dir", "sweeps", "--config-name", "tune_projection", *trials)
    told = ran("-m", "mmlit.cli", "tuned", f"{tmp_path}/tune")
    commands = [shlex.split(line) for line in told.splitlines() if line.strip().startswith("python train.py")]
    assert [next(word for word in words if "alignment=" in word) for words in commands] == [
        "alignment=contrastive", "alignment=projection"
    ]  # fmt: skip
    for words in commands:
        assert words[-1] == "trials=9"
        ran(*words[1:], *small, f"paths.outputs={tmp_path}/tuned", "seed=0")
    table = ran("-m", "mmlit.cli", "compare", f"{tmp_path}/tuned")
    assert table.count("tuned (9)") == 2
    assert "split test" in table
