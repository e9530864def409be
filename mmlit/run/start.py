"""What `train.py` does with a composed configuration: one run, or one job of a sweep that Hydra runs in its own way."""

import logging

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mmlit.results.record import FILE_NAME, read_record
from mmlit.run.devices import check_nodes, num_devices, run_on_devices
from mmlit.run.fit import run
from mmlit.run.job import evaluation_job, job_of

log = logging.getLogger(__name__)


def start(config: DictConfig) -> float | None:
    """Runs it; in a sweep a finished job is skipped.

    Returns:
        val/rsum of what the run reports, for sweepers that search; None where nothing was validated.

    Raises:
        ValueError: as `run`; if a job of a sweep asks for several devices and has no process of its own.
    """
    job = job_of(config)
    if not config.fit:
        job = evaluation_job(job)
    check_nodes(job.config, alone=HydraConfig.get().mode == RunMode.RUN)
    if HydraConfig.get().mode == RunMode.RUN:
        run(job)
    elif job.finished:
        log.info("%s: finished before", job.directory)
    elif num_devices(job.config) > 1 and "basic_launcher" in HydraConfig.get().launcher["_target_"]:
        raise ValueError(
            f"trainer.devices={job.config.trainer.devices}: hydra/launcher=basic runs all jobs in one process, where "
            "several devices would train different settings together; take hydra/launcher=processes"
        )
    else:
        run_on_devices(job._replace(again=False))
    if not job.finished:  # another of the run's processes writes the record
        return None
    validation = read_record(job.directory / FILE_NAME).validation
    return validation["rsum"] if validation else None
