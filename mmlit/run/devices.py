"""One run on one device in this process, or on several by torchrun."""

import json
import os
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from mmlit.jobs.claim import claimed
from mmlit.results.atomic import write_atomically
from mmlit.run.fit import run
from mmlit.run.job import Job

#: a job as the processes of torchrun read it: what was composed, whatever has become of the yaml files since
FILE_NAME = "job.json"


def gpus(config: DictConfig) -> list[str]:
    """The GPUs that a run with this trainer may use, as CUDA_VISIBLE_DEVICES names them; never touches one."""
    if config.trainer.accelerator not in ("gpu", "cuda", "auto"):
        return []
    count = torch.cuda.device_count()  # asks the driver's library, which a process may do before it forks
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def num_devices(config: DictConfig) -> int:
    """How many devices a run has, ≥ 1."""
    devices = config.trainer.devices
    if devices in ("auto", -1, "-1"):
        return max(1, len(gpus(config)))
    return int(devices) if isinstance(devices, int | str) else len(devices)


def check_nodes(config: DictConfig, *, alone: bool) -> None:
    """Refuses to wait for nodes that nobody starts.

    Args:
        config: the run's.
        alone: whether it is no job of a sweep.

    Raises:
        ValueError: if it has several nodes and is a job of a sweep, or nothing has started it on each of them.
    """
    nodes = config.trainer.get("num_nodes", 1)
    if nodes == 1:
        return
    if not alone:
        raise ValueError(f"trainer.num_nodes={nodes}: a job of a sweep runs on one node; start such runs one by one")
    if not {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "MASTER_ADDR"} & os.environ.keys():
        raise ValueError(
            f"trainer.num_nodes={nodes}: start this command on every node by torchrun or srun (docs/distributed.md)"
        )


def run_on_devices(job: Job) -> None:
    """Runs a job; on several devices by torchrun, one process each, which end with this one.

    Raises:
        ValueError: as `run`; with torchrun, what the process that failed first said.
        ClaimedError: if another process works on it.
    """
    if (count := num_devices(job.config)) == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        run(job)
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    content = {"config": job.plain, "choices": job.choices, "overrides": job.overrides, "launch": job.launch}
    with claimed(job.directory):
        if job.finished and not job.again:
            return
        path = write_atomically(job.directory / FILE_NAME, json.dumps(content, indent=2).encode())
        try:
            torchrun(["--standalone", f"--nproc-per-node={count}", "--module", "mmlit.run.worker", str(path)])
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            raise ValueError(_last_line(failure.message)) from None


def read_job(path: Path) -> Job:
    """A job as `run_on_devices` wrote it."""
    content = json.loads(path.read_text())
    config = OmegaConf.create(content["config"])
    return Job(config, content["choices"], content["overrides"], path.parent, content["launch"])


def _last_line(message: object) -> str:
    told = message.get("message", "") if isinstance(message, dict) else str(message)
    return next((line.strip() for line in reversed(str(told).splitlines()) if line.strip()), "no output")
