"""The composition root: configuration → objects → fit → test → record."""

import logging
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from omegaconf import DictConfig, OmegaConf

from mmlit.configuration.binding import problems
from mmlit.configuration.budget import check_trainer
from mmlit.configuration.identity import config_hash, run_name
from mmlit.configuration.stored import stored_config
from mmlit.contracts import Alignment, ImageEncoder, TextEncoder
from mmlit.data.datamodule import PairsDataModule
from mmlit.evaluation.retrieval import RetrievalResult
from mmlit.jobs.pool import Work, run_all
from mmlit.jobs.progress import LiveView
from mmlit.results.ranks import write_ranks
from mmlit.results.record import write_record
from mmlit.training.announcement import announcement
from mmlit.training.checkpoints import load_weights, read_checkpoint
from mmlit.training.module import RetrievalModule
from mmlit.training.record import ranks_of, record_of
from mmlit.training.status import StatusFile

log = logging.getLogger(__name__)
for noise in ("LeafSpec.*is depr", "is smaller than the log", "exists and is not", "requested to over", "in eval mode"):
    warnings.filterwarnings("ignore", message=f".*{noise}")
for chatty in ("lightning.pytorch", "lightning.fabric"):  # devices that are not there, tips, how loops end
    logging.getLogger(chatty).setLevel(logging.WARNING)


class Job(NamedTuple):
    """One run: its resolved configuration, the choice made on each axis, and what the user typed."""

    config: DictConfig
    choices: dict[str, str | None]
    overrides: list[str]

    @property
    def plain(self) -> dict[str, Any]:
        """The resolved configuration as plain containers."""
        return OmegaConf.to_container(self.config, resolve=True)  # type: ignore[return-value]

    @property
    def directory(self) -> Path:
        """Keyed by what runs, so that two different jobs never share a folder."""
        return Path(self.config.paths.outputs) / run_name(self.choices, self.plain)

    @property
    def finished(self) -> bool:
        """Whether a record of this very configuration exists."""
        return (self.directory / "result.json").is_file()


class _Parts(NamedTuple):
    module: RetrievalModule
    data: PairsDataModule
    trainer: Trainer
    features: Any


def run(job: Job) -> Path:
    """Trains (`fit`), evaluates once on the reported split, writes the record; returns the run's directory.

    Raises:
        ValueError: naming every wrong option, before anything is read.
    """
    if wrong := problems(job.plain):
        raise ValueError("; ".join(wrong))
    job.directory.mkdir(parents=True, exist_ok=True)
    seed_everything(job.config.seed, workers=True, verbose=False)
    parts = _build(job)
    cost = _read(job, parts)
    if job.config.fit:
        (job.directory / "result.json").unlink(missing_ok=True)  # a record stands for the weights beside it
        cost["fit_seconds"] = _fit(parts)
    start = time.perf_counter()
    parts.trainer.test(parts.module, datamodule=parts.data, verbose=False)
    cost["evaluation_seconds"] = time.perf_counter() - start
    if parts.trainer.is_global_zero and parts.module.result is not None:
        _write(job, parts, parts.module.result, cost)
    return job.directory


def start(config: DictConfig) -> None:
    """What `train.py` does with a composed configuration, alone or as one job of a sweep."""
    job = job_of(config)
    if not config.fit:
        job = evaluation_job(job)
    run(job)


def job_of(config: DictConfig) -> Job:
    """The job that a configuration composed by Hydra describes."""
    runtime = config.hydra if "hydra" in config else HydraConfig.get()
    choices = {axis: choice for axis, choice in runtime.runtime.choices.items() if not axis.startswith("hydra")}
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return Job(plain, OmegaConf.to_container(OmegaConf.create(choices)), list(runtime.overrides.task))  # type: ignore[arg-type]


def evaluation_job(job: Job) -> Job:
    """A checkpoint's own configuration with what the user typed on top.

    Raises:
        ValueError: if no checkpoint is named, or the stored configuration names a class that `conf/` does not.
    """
    if not job.config.checkpoint:
        raise ValueError("fit=false evaluates a checkpoint: name it with checkpoint=...")
    checkpoint = read_checkpoint(job.config.checkpoint)
    stored = OmegaConf.create(stored_config(checkpoint, path=job.config.checkpoint))
    choices = dict(checkpoint["mmlit"]["origin"]["choices"])
    typed = {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in job.overrides}
    if "experiment" in typed:  # it may set anything; the model itself stays the checkpoint's
        typed |= set(job.choices) - {"image_encoder", "text_encoder", "alignment"}
    if "seed" in typed:
        raise ValueError("seed belongs to the training of a checkpoint; it cannot be given with fit=false")
    for key in sorted(typed | {"fit", "checkpoint", "split", "paths", "trainer", "logger", "callbacks"}):
        OmegaConf.update(stored, key, OmegaConf.select(job.config, key), merge=False, force_add=True)
        choices |= {key: job.choices[key]} if key in job.choices else {}
    return Job(stored, choices, job.overrides)


def _build(job: Job) -> _Parts:
    """Every object of the run; all that a constructor refuses is refused here, before any data is read."""
    config = job.config
    image_encoder: ImageEncoder = _make(config.image_encoder)
    text_encoder: TextEncoder = _make(config.text_encoder)
    alignment: Alignment = _make(config.alignment, image=image_encoder.spec, text=text_encoder.spec)
    evaluator = _make(
        config.evaluator,
        score=alignment.score,
        coarse=getattr(alignment, "coarse", None),
        max_text_tokens=text_encoder.spec.max_length,
    )
    optimizer, schedule = _make(config.optimizer), _make(config.schedule)
    # A trial run on one number: the ranges of both are checked by the classes themselves.
    try:
        schedule(optimizer([torch.nn.Parameter(torch.zeros(1))]), total_steps=1)
    except ValueError as error:
        raise ValueError(f"optimizer or schedule: {error}") from error
    module = RetrievalModule(
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        alignment=alignment,
        evaluator=evaluator,
        optimizer=optimizer,
        schedule=schedule,
        seed=config.seed,
        origin={"config": job.plain, "choices": job.choices, "rule": _rule(job)},
    )
    data = _make(
        config.data,
        seed=config.seed,
        split=config.split,
        image=image_encoder.spec,
        tokenize=text_encoder.tokenize,
    )
    return _Parts(module, data, _trainer(job), _make(config.features) if config.get("features") else None)


def _make(node: DictConfig, **runtime: Any) -> Any:
    return instantiate(node, _convert_="all", **runtime)


def _trainer(job: Job) -> Trainer:
    config, directory = job.config, str(job.directory)
    check_trainer(job.plain)
    loggers = [_make(node, save_dir=directory) for node in (config.get("logger") or {}).values()]
    callbacks = [
        _make(node, dirpath=f"{directory}/checkpoints") if name == "checkpoint" else _make(node)
        for name, node in config.callbacks.items()
    ]
    if config.trainer.enable_progress_bar:
        callbacks.append(RichProgressBar())
    callbacks.append(StatusFile(path=job.directory / "status.json"))
    trainer: Trainer = _make(config.trainer, logger=loggers, callbacks=callbacks, default_root_dir=directory)
    if trainer.precision != (asked := str(config.trainer.precision)) and asked.endswith("-mixed"):
        raise ValueError(f"trainer.precision={asked} does not exist on this accelerator; use bf16-mixed or 32-true")
    return trainer


def _read(job: Job, parts: _Parts) -> dict[str, float]:
    """Weights, data and features, in this order: what can be refused soonest comes first. Returns their seconds."""
    stored = read_checkpoint(job.config.checkpoint) if job.config.checkpoint else None
    if stored:
        load_weights(parts.module, stored, path=job.config.checkpoint)
    if job.config.fit:
        parts.data.setup("fit")
        parts.module.origin["training"] = parts.data.training_facts()
    parts.data.setup("test")
    text_encoder = parts.module.text_encoder
    if text_encoder.num_truncated:
        log.warning(
            "%d of %d captions are longer than text_encoder.max_length=%d tokens and lose their end",
            text_encoder.num_truncated, text_encoder.num_texts, text_encoder.spec.max_length,
        )  # fmt: skip
    for line in announcement(parts.trainer, parts.module, parts.data, directory=job.directory):
        log.info(line)
    cost = {"features_seconds": _fill(parts)} if parts.features else {}
    if stored and not job.config.fit:
        parts.module.adopt(stored, name=Path(job.config.checkpoint).name)
        cost["fit_seconds"] = stored["mmlit"]["fit_seconds"]
        if parts.data.readers["test"].captions.digest in parts.module.origin["training"]["digests"]:
            log.warning(
                "split=%s is what this checkpoint learned or was selected on: no test", parts.data.names["test"]
            )
    return cost


def _fill(parts: _Parts) -> float:
    start = time.perf_counter()
    parts.features.fill(
        parts.data.readers,
        parts.module.image_encoder,
        parts.module.text_encoder,
        tokens=parts.module.alignment.needs_tokens,
        device=parts.trainer.strategy.root_device,
    )
    return time.perf_counter() - start


def _fit(parts: _Parts) -> float:
    """Seconds of training with its validation; leaves the selected weights in the module."""
    start = time.perf_counter()
    parts.trainer.fit(parts.module, datamodule=parts.data)
    seconds = time.perf_counter() - start
    if parts.trainer.interrupted:
        raise KeyboardInterrupt
    selected = parts.trainer.checkpoint_callback
    if not isinstance(selected, ModelCheckpoint) or not selected.best_model_path:
        raise ValueError("training ended without a checkpoint: see trainer.limit_* and callbacks.checkpoint")
    stored = read_checkpoint(selected.best_model_path)
    load_weights(parts.module, stored, path=selected.best_model_path)
    parts.module.origin["selection"] = f"{parts.module.origin['rule']}, epoch {stored['epoch'] + 1}"
    return seconds


def _write(job: Job, parts: _Parts, result: RetrievalResult, cost: dict[str, float]) -> None:
    write_ranks(job.directory, **ranks_of(result))
    identity = {
        "config": job.plain,
        "choices": job.choices,
        "overrides": job.overrides,
        "config_hash": config_hash(job.plain),
    }
    facts = record_of(parts.trainer, parts.module, parts.data, result)
    facts["cost"] |= cost
    path = write_record(job.directory, {**identity, "seed": job.config.seed, **facts})
    numbers = (f"{name} {result.metrics[name]:.1f}" for name in ("rsum", "i2t_r1", "t2i_r1"))
    log.info("%s: %s (%s split, scored %s)", path, ", ".join(numbers), facts["split"], result.scored)


def _rule(job: Job) -> str:
    monitor = OmegaConf.select(job.config, "callbacks.checkpoint.monitor")
    return f"best {monitor}" if monitor else "last epoch"


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
