"""The trackers of a run, and what watches it on their behalf."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers.logger import DummyLogger, Logger

from mmlit.results.provenance import code
from mmlit.run.job import Job
from mmlit.training.attention_pictures import AttentionPictures
from mmlit.training.gallery_pictures import GalleryPictures
from mmlit.training.monitor import Monitor
from mmlit.training.trackers.guard import Guarded, tell_silent
from mmlit.training.trackers.tracked_run import TrackedRun, flattened

#: what a dashboard tells runs apart by
_AXES = ("data", "image_encoder", "text_encoder", "alignment")


def trackers(job: Job) -> tuple[list[Guarded], list[Callback]]:
    """The loggers that are configured, each guarded, and the callbacks that feed them; neither without a logger."""
    nodes: Mapping[str, Any] = job.config.get("logger") or {}
    if not nodes:
        return [], []
    run = tracked_run(job)
    loggers = [
        Guarded(_opened(str(choice), node, run), choice=str(choice), directory=job.directory)
        for choice, node in nodes.items()
    ]
    folder = job.directory / "pictures"
    watching = [
        LearningRateMonitor(logging_interval="step"),
        Monitor(parameters=run.parameters),
        GalleryPictures(folder=folder),
        AttentionPictures(folder=folder),
    ]
    return loggers, watching


def _opened(choice: str, node: Any, run: TrackedRun) -> Logger:
    """A tracker, or one that says nothing where its folder or its server is not to be had."""
    try:
        return instantiate(node, _convert_="all", run=run)
    except InstantiationException as error:
        if error.__cause__ is None or isinstance(error.__cause__, ValueError):  # what a user can mend
            raise
        tell_silent(choice, error.__cause__)
        return DummyLogger()


def tracked_run(job: Job) -> TrackedRun:
    """What trackers are told of a job; its group is the folder that the runs of a sweep share."""
    choices = {axis: str(job.choices[axis]) for axis in _AXES if job.choices.get(axis)}
    facts = {"choices": choices, **job.plain, "code": code()}
    return TrackedRun(
        directory=job.directory,
        group=job.directory.resolve().parent.name,
        job_type=choices.get("alignment", ""),
        choices=choices,
        parameters=flattened(facts),
        resumed_step=_resumed_step(job.resume_point),
    )


def _resumed_step(checkpoint: Path) -> int | None:
    """Optimizer steps that a killed run has done when it goes on; None where a run begins anew."""
    if not checkpoint.is_file():
        return None
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
