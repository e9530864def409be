"""Many runs, each in a process of its own."""

import logging
from collections.abc import Sequence
from functools import partial

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from mmlit.configuration.binding import problems
from mmlit.jobs.pool import Work, run_all
from mmlit.jobs.progress import LiveView
from mmlit.run.fit import run
from mmlit.run.job import Job, job_of

log = logging.getLogger(__name__)


def sweep(configs: Sequence[DictConfig], *, parallel: int, threads: int) -> None:
    """Runs composed configurations as jobs, each in its own process, and skips those that have a record.

    Raises:
        ValueError: naming what is wrong with any job, before the first starts; at the end, naming the failed ones.
    """
    jobs = [job_of(config) for config in configs]
    for job in jobs:
        if wrong := problems(job.plain):
            raise ValueError("; ".join(wrong))
        if job.config.trainer.devices != 1:
            raise ValueError(f"trainer.devices={job.config.trainer.devices}: a job of a sweep has one device")
    todo = [job for job in jobs if not job.finished]
    log.info("%d runs, %d of them finished before", len(jobs), len(jobs) - len(todo))
    works = [Work(job.directory.name, job.directory, partial(_run_alone, job, threads)) for job in todo]
    with LiveView(total=len(jobs), skipped=len(jobs) - len(todo), parallel=parallel) as view:
        ended = run_all(works, parallel=parallel, watcher=view)
    if failed := [f"{outcome.name}: {outcome.error}" for outcome in ended if outcome.error]:
        raise ValueError(f"{len(failed)} of {len(jobs)} runs failed: {' | '.join(failed)}")


def _run_alone(job: Job, threads: int) -> None:
    """In a process of its own: the progress bar would only fill the log."""
    torch.set_num_threads(threads)
    logging.captureWarnings(True)
    try:
        run(job)
    except InstantiationException as error:  # its last line, which the sweep will show, says only where
        raise ValueError(str(error.__cause__ or error)) from error
