"""Many runs, each in a process of its own, and those that a kill left half done go on."""

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from mmlit.configuration.binding import problems
from mmlit.jobs.claim import is_claimed
from mmlit.jobs.pool import Work, run_all
from mmlit.jobs.progress import LiveView
from mmlit.jobs.sharing import Share, shares
from mmlit.results.record import FILE_NAME, read_record
from mmlit.run.devices import gpus, num_devices, run_on_devices
from mmlit.run.job import Job, job_of

log = logging.getLogger(__name__)


class Ended(NamedTuple):
    """How a job of a sweep ended: val/rsum of what it reports, or None where nothing was validated; or its error."""

    name: str
    value: float | None
    error: str | None


def sweep(configs: Sequence[DictConfig], *, parallel: int | None, threads: int | None) -> list[Ended]:
    """Runs composed configurations as jobs, each in its own process, and skips those that have a record.

    Args:
        configs: one per job.
        parallel: jobs at a time; None: one for each GPU, or each core up to four.
        threads: of each job; None: the cores are shared out.

    Raises:
        ValueError: naming what is wrong with any job, before the first starts.
    """
    jobs = planned(configs)
    todo = [job for job in jobs if not job.finished]
    resumed = sum(job.resume_point.is_file() for job in todo)
    log.info("%d runs, %d of them finished before, %d go on", len(jobs), len(jobs) - len(todo), resumed)
    share = shares(
        parallel=parallel,
        threads=threads,
        num_devices=max((num_devices(job.config) for job in jobs), default=1),
        gpus=[gpu for job in jobs[:1] for gpu in gpus(job.config)],
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )
    names = dict(
        zip([job.directory for job in jobs], map(_name, jobs, varying([j.overrides for j in jobs])), strict=True)
    )
    works = [
        Work(names[job.directory], job.directory, partial(_run_alone, job, share), partial(_finished, job))
        for job in todo
    ]
    try:
        with LiveView(total=len(jobs), skipped=len(jobs) - len(todo), parallel=share.parallel) as view:
            outcomes = run_all(works, parallel=share.parallel, watcher=view)
    except KeyboardInterrupt:
        log.warning("interrupted; the same command goes on")
        raise
    errors = {outcome.name: outcome.error for outcome in outcomes}
    return [_ended(job, names[job.directory], errors.get(names[job.directory])) for job in jobs]


def planned(configs: Sequence[DictConfig]) -> list[Job]:
    """The jobs of a sweep, each checked.

    Raises:
        ValueError: naming what is wrong with any of them.
    """
    jobs = [job_of(config) for config in configs]
    for job in jobs:
        if wrong := problems(job.plain):
            raise ValueError("; ".join(wrong))
    return jobs


def plan(configs: Sequence[DictConfig]) -> str:
    """What a sweep would do: a line for each job, its state first."""
    jobs = planned(configs)
    width = max((len(job.directory.name) for job in jobs), default=0)
    lines = [
        f"{_state(job):<10}{job.directory.name:<{width}}  {' '.join(own)}".rstrip()
        for job, own in zip(jobs, varying([job.overrides for job in jobs]), strict=True)
    ]
    return "\n".join([*lines, f"{len(jobs)} runs, {sum(not job.finished for job in jobs)} of them to do"])


def varying(overrides: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each job's overrides those that not all jobs have."""
    common = set.intersection(*map(set, overrides)) if overrides else set()
    return [[each for each in own if each not in common] for own in overrides]


def _state(job: Job) -> str:
    if job.finished:
        return "finished"
    return "running" if is_claimed(job.directory) else "goes on" if job.resume_point.is_file() else "new"


def _name(job: Job, own: Sequence[str]) -> str:
    """A run's folder, and the options in which it differs from the others that its name does not show."""
    shown = [each for each in own if not each.startswith(("alignment=", "seed=", "data="))]
    return " ".join([job.directory.name, *shown])


def _ended(job: Job, name: str, error: str | None) -> Ended:
    if error or not job.finished:
        return Ended(name, None, f"{error or 'it was not finished'} ({job.directory / 'log.txt'})")
    validation = read_record(job.directory / FILE_NAME).validation
    return Ended(name, validation["rsum"] if validation else None, None)


def _finished(job: Job) -> bool:
    return job.finished


def _run_alone(job: Job, share: Share, place: int) -> None:
    """In a process of its own: the progress bar would only fill the log."""
    if job.finished:  # by another sweep, meanwhile
        return
    if share.devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.devices[place]
    os.environ["OMP_NUM_THREADS"] = str(share.threads)  # for processes that this one starts
    torch.set_num_threads(share.threads)
    # Hydra's handlers write to the sweep's own output.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    logging.captureWarnings(True)
    try:
        run_on_devices(job._replace(again=False))
    except InstantiationException as error:  # its last line, which the sweep will show, says only where
        raise ValueError(str(error.__cause__ or error)) from error
