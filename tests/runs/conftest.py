"""`train.py` as a user calls it, forked from the test process, which has imported torch and lightning already."""

import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import mmlit.run.fit  # noqa: F401  (imported once, before the forks)
from mmlit.data.scenes.write import write_scenes

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """A small set of rendered scenes."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root=root, train=96, val=16, test=24, size=32, seed=0, workers=1)
    return root


@pytest.fixture
def train(tmp_path, monkeypatch, scenes):
    """Runs `python train.py` with small towers on small data, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, small: bool = True, before: Callable[[], None] = lambda: None) -> Ended:
        defaults = [
            f"paths.outputs={tmp_path}/outputs", f"paths.cache={tmp_path}/cache",
            "trainer.enable_progress_bar=false", "hydra.verbose=false",
        ]  # fmt: skip
        if small:
            defaults += [
                f"data.root={scenes}", "data.batch_size=16", "trainer.max_epochs=2", "image_encoder.dim=32",
                "image_encoder.num_layers=1", "text_encoder.dim=32", "text_encoder.num_layers=1", "alignment.dim=32",
                "evaluator.num_candidates=8",
            ]  # fmt: skip
        return forked([*defaults, *overrides], before=before)

    return run


@pytest.fixture
def sweep_command(tmp_path, scenes):
    """The command of the main comparison's sweep, small: for processes that have run no torch operation."""

    def command(*overrides: str) -> list[str]:
        return [
            sys.executable, "train.py", "--config-dir", "sweeps", "--config-name", "alignments",
            f"paths.outputs={tmp_path}/sweep", f"paths.cache={tmp_path}/cache",
            f"data.root={scenes}", "data.batch_size=16", "trainer.max_epochs=1",
            "trainer.check_val_every_n_epoch=1", "image_encoder.dim=32", "text_encoder.dim=32",
            "text_encoder.num_layers=1", "alignment.dim=32", "evaluator.num_candidates=4", *overrides,
        ]  # fmt: skip

    return command


@pytest.fixture
def sweep(sweep_command):
    """Runs it to its end."""

    def run(*overrides: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            sweep_command(*overrides), cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
        )

    return run


def forked(arguments: list[str], *, before: Callable[[], None] = lambda: None) -> Ended:
    """`before` is called in the process that is to run the command."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _child(arguments, out.fileno(), err.fileno(), before)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return Ended(os.waitstatus_to_exitcode(status), *texts)


def forked_together(arguments: list[str], environments: list[dict[str, str]]) -> list[Ended]:
    """The command once in each of these environments, all at once: processes that find each other."""
    with ThreadPoolExecutor(len(environments)) as pool:
        return list(pool.map(lambda own: forked(arguments, before=lambda: os.environ.update(own)), environments))


def _child(arguments: list[str], out: int, err: int, before: Callable[[], None]) -> None:
    code = 0
    try:
        before()
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        torch.set_num_threads(1)
        GlobalHydra.instance().clear()
        sys.argv = ["train.py", *arguments]
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  (as the interpreter itself would)
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
