"""Several devices through Lightning's own trainer: the gradients of one, on one machine and on two."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from runs.conftest import ROOT, forked, forked_together

from mmlit.training.module import RetrievalModule

ALIGNMENTS = sorted(path.stem for path in (ROOT / "conf" / "alignment").glob("*.yaml"))
#: 87 images in global batches of 16, the last one of 7: two devices have 4 and 3 of it, four have 2, 2, 2 and 1
UNEVEN = ("data.val=9", "data.drop_last=false", "trainer.max_epochs=1")
#: nothing moves, so that every step's gradient can be compared
STILL = ("optimizer.lr=0.0", "alignment.dropout=0.0")
STEPS = 6


def options(folder: Path, scenes: Path, *, batch_size: int) -> list[str]:
    return [
        f"paths.outputs={folder}/outputs", f"data.root={scenes}", f"data.batch_size={batch_size}", *UNEVEN, *STILL,
        "trainer.enable_progress_bar=false", "image_encoder.dim=32", "image_encoder.num_layers=1",
        "text_encoder.dim=32", "text_encoder.num_layers=1", "alignment.dim=32", "evaluator.num_candidates=8",
        "+callbacks.gradients._target_=runs.gradient_dump.GradientDump", f"+callbacks.gradients.folder={folder}/steps",
    ]  # fmt: skip


def ddp(*, devices: int, nodes: int = 1) -> list[str]:
    return [
        "trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={devices}", f"trainer.num_nodes={nodes}",
        "trainer.deterministic=true",
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def torchrun_environments(world: int) -> list[dict[str, str]]:
    """What torchrun tells each process of one machine."""
    common = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none",
    }  # fmt: skip
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def slurm_environments(nodes: int) -> list[dict[str, str]]:
    """What srun tells the one task of each node."""
    common = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": str(nodes), "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": str(nodes), "SLURM_NODELIST": "127.0.0.1", "SLURM_LOCALID": "0",
        "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    return [{**common, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in range(nodes)]


def assert_same_steps(found: Path, expected: Path, *, cancels: float = 0.0) -> None:
    """Every parameter's gradient in every step, the one with the uneven batch included, to 1e-5 of its norm.

    A gradient whose norm is less than the share `cancels` of the whole gradient's is compared as if it had that share.
    """
    names = sorted(path.name for path in (expected / "steps").iterdir())
    assert len(names) == STEPS
    assert sorted(path.name for path in (found / "steps").iterdir()) == names
    for name in names:
        one, other = (torch.load(folder / "steps" / name) for folder in (expected, found))
        assert one.keys() == other.keys()
        assert all(part.startswith(("image_encoder.", "text_encoder.", "alignment.")) for part in one)
        least = cancels * torch.stack([gradient.norm() for gradient in one.values()]).norm()
        for part, gradient in one.items():
            assert (other[part] - gradient).norm() <= 1e-5 * max(gradient.norm(), least), (name, part)


@pytest.fixture
def alone(train, tmp_path, scenes):
    """The gradients of one device; returns their folder."""

    def run(*further: str) -> Path:
        ended = train(*options(tmp_path / "one", scenes, batch_size=16), *further, small=False)
        assert ended.code == 0, ended.err
        return tmp_path / "one"

    return run


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_trainer_ddp_has_the_gradients_of_one_device(alone, tmp_path, scenes, alignment):
    """Traps 13, 14 and 15: two and four devices, the batch whole and in chunks, the last one uneven."""
    expected = alone(f"alignment={alignment}")
    for world, further in ((2, []), (4, []), (2, ["step=gradient_cache", "step.chunk_size=3"])):
        folder = tmp_path / f"{world}-{len(further)}"
        arguments = [*options(folder, scenes, batch_size=16 // world), f"alignment={alignment}", *ddp(devices=world)]
        for ended in forked_together([*arguments, *further], torchrun_environments(world)):
            assert ended.code == 0, ended.err
        # biases behind its last norm get what true pairs and mined ones leave of each other: fp32 gives that to 1.2e-5
        assert_same_steps(folder, expected, cancels=1e-3 if alignment == "single_stream" else 0.0)
        (path,) = folder.rglob("result.json")
        record = json.loads(path.read_text())
        assert record["environment"]["device"] == f"{world} x cpu"
        assert record["budget"] == {"epochs": 1, "steps": STEPS, "pairs_seen": 87}


@pytest.mark.slow
def test_two_nodes_by_torchrun(alone, tmp_path, scenes):
    """Two nodes with one process each, on loopback."""
    expected, folder, port = alone(), tmp_path / "nodes", free_port()
    started = []
    for rank in range(2):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}",
            "--master-addr=127.0.0.1", f"--master-port={port}", "train.py",
            *options(folder, scenes, batch_size=8), *ddp(devices=1, nodes=2),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    told = [process.communicate(timeout=300)[0].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    assert_same_steps(folder, expected)


@pytest.mark.slow
def test_two_nodes_by_slurm(alone, tmp_path, scenes):
    """Two nodes with one task each, as srun describes them, on loopback."""
    expected, folder = alone(), tmp_path / "nodes"
    arguments = [*options(folder, scenes, batch_size=8), *ddp(devices=1, nodes=2)]
    ended = forked_together(arguments, slurm_environments(2))
    assert [each.code for each in ended] == [0, 0], ended
    assert "device: 2 x cpu" in ended[0].out
    assert "device: " not in ended[1].out  # one of the processes speaks
    assert_same_steps(folder, expected)


def test_nodes_that_nobody_starts_are_not_waited_for(train):
    ended = train(*ddp(devices=1, nodes=2))
    assert ended.code == 2
    assert "trainer.num_nodes=2: start this command on every node by torchrun or srun" in ended.err


def test_several_nodes_without_ddp_are_refused(train):
    (environment, _) = torchrun_environments(2)
    ended = train("+trainer.num_nodes=2", before=lambda: os.environ.update(environment))
    assert ended.code == 2
    assert "trainer.num_nodes=2: several nodes need trainer=ddp" in ended.err


@pytest.mark.slow
def test_a_job_of_a_sweep_does_not_wait_for_other_nodes(train):
    ended = train("seed=0,1", *ddp(devices=1, nodes=2), "hydra/launcher=basic", "hydra.mode=MULTIRUN")
    assert ended.code == 2
    assert "trainer.num_nodes=2: a job of a sweep runs on one node" in ended.err


def test_a_batch_norm_without_its_whole_batch_is_refused(train):
    """By name, and before any data is read."""
    tower = ["image_encoder=resnet50", "image_encoder.weights=null", "image_encoder.freeze=false"]
    ended = train(*tower, "step=gradient_cache", "data.root=nowhere", small=False)
    assert ended.code == 2
    assert "step=gradient_cache: image_encoder." in ended.err
    assert "image_encoder.freeze=true" in ended.err


@pytest.mark.slow
def test_each_device_draws_its_own_dropout(tmp_path, scenes):
    """From one seed all of them would leave the same units and patches out of their pictures."""

    def drawing() -> None:
        step = RetrievalModule.training_step

        def drawn(self, *given):
            with torch.random.fork_rng():
                torch.save(F.dropout(torch.ones(64)), tmp_path / f"{self.global_rank}.pt")
            return step(self, *given)

        RetrievalModule.training_step = drawn

    arguments = [*options(tmp_path, scenes, batch_size=8), *ddp(devices=2)]
    with ThreadPoolExecutor(2) as pool:
        ended = pool.map(
            lambda own: forked(arguments, before=lambda: (os.environ.update(own), drawing())), torchrun_environments(2)
        )
        assert [each.code for each in ended] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert not torch.equal(first, second)
