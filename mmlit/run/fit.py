"""Trains, or goes on training, evaluates once on the reported split, writes the record."""

import logging
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from mmlit.configuration.binding import problems
from mmlit.configuration.identity import config_hash
from mmlit.evaluation.retrieval import RetrievalResult
from mmlit.features.key import Manner
from mmlit.jobs.claim import claimed
from mmlit.results.atomic import write_atomically
from mmlit.results.pictures import file_name
from mmlit.results.ranks import write_ranks
from mmlit.results.record import write_record
from mmlit.run.job import Job
from mmlit.run.parts import Parts, build
from mmlit.training.announcement import announcement, cautions
from mmlit.training.checkpoints import DamagedCheckpointError, load_weights, read_checkpoint
from mmlit.training.record import ranks_of, record_of
from mmlit.training.sound import FILE_NAME as BROKEN_STEP
from mmlit.training.thumbnails import keep_pictures
from mmlit.training.trackers.guard import closing, report

log = logging.getLogger(__name__)
for noise in (
    "LeafSpec.*is depr",
    "is smaller than the log",
    "exists and is not",
    "requested to over",
    "in eval mode",
    "This DataLoader will create",
    "It is recommended to use `self.log..train/same_image_in_epoch",  # the same on every device already
):
    warnings.filterwarnings("ignore", message=f".*{noise}")
for chatty in ("lightning.pytorch", "lightning.fabric"):  # devices that are not there, tips, how loops end
    logging.getLogger(chatty).setLevel(logging.WARNING)


def run(job: Job) -> Path:
    """Trains (`fit`), evaluates once on the reported split, writes the record; returns the run's directory.

    Raises:
        ValueError: naming every wrong option, before anything is read.
    """
    if wrong := problems(job.plain):
        raise ValueError("; ".join(wrong))
    seed_everything(job.config.seed, workers=True, verbose=False)
    resume = job.resume_point if job.config.fit and _goes_on(job) else None
    parts = build(job)
    if not parts.trainer.is_global_zero:  # one of a run's processes speaks
        logging.getLogger("mmlit").setLevel(logging.WARNING)
    with closing(parts.trainer.loggers):
        cost = _read(job, parts)
        # the first of a run's processes speaks for all, unless who started them does
        if job.config.fit and parts.trainer.is_global_zero and job.folder is None:
            with claimed(job.directory):
                if job.again or not job.finished:  # which another sweep may have done since this one looked
                    _run(job, parts, cost, resume)
        else:
            job.directory.mkdir(parents=True, exist_ok=True)
            _run(job, parts, cost, resume)
    return job.directory


def _run(job: Job, parts: Parts, cost: dict[str, float], resume: Path | None) -> None:
    if job.config.fit:
        if resume is None:
            _set_aside(job)
        cost["fit_seconds"] = _fit(parts, resume=resume)
    start = time.perf_counter()
    parts.trainer.test(parts.module, datamodule=parts.data, verbose=False)
    cost["evaluation_seconds"] = time.perf_counter() - start
    if parts.trainer.is_global_zero and parts.module.result is not None:
        _write(job, parts, parts.module.result, cost)
        job.resume_point.unlink(missing_ok=True)


def _goes_on(job: Job) -> bool:
    """Whether a killed run of these options left a point to go on from; one that cannot be read is removed."""
    if not job.resume_point.is_file():
        return False
    try:
        stored = read_checkpoint(job.resume_point)
    except DamagedCheckpointError as error:
        log.warning("%s; this run starts anew", error)
        job.resume_point.unlink(missing_ok=True)
        return False
    log.info("goes on from %s, after %d optimizer steps", job.resume_point, stored["global_step"])
    return True


def _set_aside(job: Job) -> None:
    """Removes what an earlier run of this very configuration left: a record stands for the weights beside it."""
    if job.finished:
        log.warning("%s holds a finished run of these options: it is replaced", job.directory)
    left = [job.directory / name for name in ("result.json", BROKEN_STEP)]
    for path in (*left, *job.directory.glob("events.out.tfevents.*")):
        path.unlink(missing_ok=True)


def _read(job: Job, parts: Parts) -> dict[str, float]:
    """Weights, data and features, in this order: what can be refused soonest comes first. Returns their seconds."""
    stored = read_checkpoint(job.config.checkpoint) if job.config.checkpoint else None
    if stored:
        load_weights(parts.module, stored, path=job.config.checkpoint)
    if job.config.fit:
        parts.data.setup("fit")
        parts.module.origin["training"] = parts.data.training_facts()
        tags = parts.data.readers["train"].tags
        for auxiliary in parts.module.auxiliaries.values():
            auxiliary.begin(tags.names if tags else ())  # type: ignore[operator]
    parts.data.setup("test")
    _tell(job, parts, trained_before=stored is not None)
    if job.config.fit:
        parts.data.look_at_galleries()
    cost = _fill(parts) if parts.features else {}
    if not stored and not job.config.fit:
        parts.module.adopt_published()
        cost["fit_seconds"] = 0.0
    elif stored and not job.config.fit:
        parts.module.adopt(stored, name=Path(job.config.checkpoint).name)
        cost["fit_seconds"] = stored["mmlit"]["fit_seconds"]
        if parts.data.readers["test"].captions.digest in parts.module.origin["training"]["digests"]:
            log.warning(
                "split=%s is what this checkpoint learned or was selected on: no test", parts.data.names["test"]
            )
    return cost


def _tell(job: Job, parts: Parts, *, trained_before: bool) -> None:
    """What the run is about to do, and what of it may not be meant so; the first of its processes speaks for all."""
    if not parts.trainer.is_global_zero:
        return
    tables = [reader.tokens for reader in parts.data.readers.values()]
    if cut := sum(table.num_truncated for table in tables):
        log.warning(
            "%d of %d captions are longer than text_encoder.max_length=%d tokens and lose their end",
            cut, sum(len(table.lengths) for table in tables), parts.module.text_encoder.spec.max_length,
        )  # fmt: skip
    for tower in ("image_encoder", "text_encoder"):
        node = job.config[tower]
        if job.config.fit and not trained_before and node.get("freeze") and node.get("weights") is None:
            log.warning("%s is frozen with random weights: it never learns; %s.freeze=false trains it", tower, tower)
        if job.config.fit and not trained_before and getattr(parts.module, tower).adapted and not node.get("weights"):
            log.warning("%s has random weights, which stay as they are beside adapters; without them it trains", tower)
    idle = parts.module.groups.idle(parts.module) if job.config.fit and parts.module.groups else set()
    for given in job.overrides:
        if given.lstrip("+").partition("=")[0] in {f"groups.{name}" for name in idle}:
            log.warning("%s changes nothing: nothing trains that it is for", given)
    for line in announcement(parts.trainer, parts.module, parts.data, directory=job.directory):
        log.info(line)
    if told := parts.data.unnamed_splits():
        log.info("rows of splits that no option names: %s", told)
    if job.config.fit:
        for line in cautions(parts.trainer, parts.data):
            log.warning(line)


def _fill(parts: Parts) -> dict[str, float]:
    start = time.perf_counter()
    used = parts.features.fill(
        parts.data.readers,
        {"image_encoder": parts.module.image_encoder, "text_encoder": parts.module.text_encoder},
        tokens=parts.module.alignment.needs_tokens,
        manner=Manner(
            device=parts.trainer.strategy.root_device,
            precision=str(parts.trainer.precision),
            context=parts.trainer.precision_plugin.forward_context,
            num_workers=parts.data.num_workers,
        ),
    )
    return {"features_seconds": time.perf_counter() - start} if used else {}


def _fit(parts: Parts, *, resume: Path | None) -> float:
    """Seconds of training with its validation; leaves the selected weights in the module."""
    parts.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=resume, weights_only=True)
    if parts.trainer.interrupted:
        raise KeyboardInterrupt
    seconds = parts.module.fit_seconds
    selected = parts.trainer.checkpoint_callback
    if not isinstance(selected, ModelCheckpoint) or not selected.best_model_path:
        raise ValueError("training ended without a checkpoint: see trainer.limit_* and callbacks.checkpoint")
    stored = read_checkpoint(path := Path(selected.best_model_path))
    load_weights(parts.module, stored, path=path)
    if parts.trainer.is_global_zero and stored["mmlit"]["budget"] != (used := parts.module.budget._asdict()):
        # planned when it was written, and early stopping ended training before: who evaluates the file is to know
        stored["mmlit"]["budget"] = used
        write_atomically(path, partial(torch.save, stored))
    parts.module.validation = stored["mmlit"]["validation"]
    parts.module.origin["selection"] = f"{parts.module.origin['rule']}, epoch {stored['epoch'] + 1}"
    return seconds


def _write(job: Job, parts: Parts, result: RetrievalResult, cost: dict[str, float]) -> None:
    arrays = ranks_of(result)
    ranks = write_ranks(job.directory, **arrays)
    identity = {
        "config": job.plain,
        "choices": job.choices,
        "overrides": job.overrides,
        "config_hash": config_hash(job.plain),
        "launch": job.launch,
    }
    facts = record_of(parts.trainer, parts.module, parts.data, result)
    facts["cost"] |= cost
    keep_pictures(
        parts.data.readers["test"].captions,
        arrays["image_id"],
        name=file_name(facts["data"]["hash"], facts["gallery"]["hash"]),
        near=job.directory,
        otherwise=Path(job.config.paths.outputs),
    )
    path = write_record(job.directory, {**identity, "seed": job.config.seed, **facts})
    selected = getattr(parts.trainer.checkpoint_callback, "best_model_path", "")  # empty if nothing was trained
    report(parts.trainer.loggers, [path, ranks], Path(selected) if selected else None, result.metrics)
    numbers = (f"{name} {result.metrics[name]:.1f}" for name in ("rsum", "i2t_r1", "t2i_r1"))
    log.info("%s: %s (%s split, scored %s)", path, ", ".join(numbers), facts["split"], result.scored)
