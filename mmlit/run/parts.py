"""The objects of a run, built from its configuration before any data is read."""

from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from omegaconf import DictConfig, OmegaConf

from mmlit.configuration.binding import locate
from mmlit.configuration.budget import check_trainer
from mmlit.configuration.stored import local_directories
from mmlit.contracts import Alignment, Auxiliary, Encoded, ImageEncoder, ImageSpec, TextEncoder
from mmlit.data.datamodule import PairsDataModule
from mmlit.data.further import Further
from mmlit.evaluation.probe import Probe
from mmlit.run.job import Job
from mmlit.run.tracking import trackers
from mmlit.training.batch_norm import check_batch_norm, check_folded
from mmlit.training.curves import Curves
from mmlit.training.modulation import Modulation
from mmlit.training.module import RetrievalModule
from mmlit.training.profiler import profiler_of
from mmlit.training.resume import ResumePoint
from mmlit.training.sound import SoundTraining
from mmlit.training.speed import keep_freed_memory
from mmlit.training.status import StatusFile
from mmlit.training.tf32 import allow_tf32
from mmlit.training.thawing import Thawing


class Parts(NamedTuple):
    """What a run consists of; `features` is a store of frozen encoders' outputs, or None."""

    module: RetrievalModule
    data: PairsDataModule
    trainer: Trainer
    features: Any


def build(job: Job) -> Parts:
    """Every object of the run; all that a constructor refuses is refused here, before any data is read."""
    config = job.config
    image_encoder: ImageEncoder = make(config.image_encoder)
    text_encoder: TextEncoder = make(config.text_encoder)
    alignment: Alignment = make(config.alignment, image=image_encoder.spec, text=text_encoder.spec)
    # now that alignments have drawn the weights they always draw; in one order, however they were typed
    for _, node in sorted((config.get("towers") or {}).items()):
        make(node).apply(image_encoder, text_encoder)
    if issubclass(locate(config.evaluator["_target_"]), Probe):
        raise ValueError(
            f"evaluator={job.choices.get('evaluator')} asks a trained model questions of its own: train with "
            "evaluator=retrieval, then `mmlit evaluate RUN --evaluator ...`"
        )
    evaluator = make(
        config.evaluator,
        score=alignment.score,
        coarse=getattr(alignment, "coarse", None),
        max_text_tokens=text_encoder.spec.max_length,
    )
    optimizer, schedule = make(config.optimizer), make(config.schedule)
    # A trial run on one number: the ranges of both are checked by the classes themselves.
    try:
        schedule(optimizer([torch.nn.Parameter(torch.zeros(1))]), total_steps=1)
    except ValueError as error:
        raise ValueError(f"optimizer or schedule: {error}") from error
    auxiliaries = _auxiliaries(job, image_encoder, alignment)
    module = RetrievalModule(
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        alignment=alignment,
        auxiliaries=auxiliaries,
        evaluator=evaluator,
        optimizer=optimizer,
        groups=make(config.groups) if config.get("groups") else None,
        schedule=schedule,
        step=make(config.step) if config.get("step") else None,
        seed=config.seed,
        origin={
            "config": job.plain,
            "choices": job.choices,
            "rule": _rule(job),
            "directories": local_directories(job.plain),
        },
    )
    data = make(
        config.data,
        seed=config.seed,
        split=config.split,
        image=image_encoder.spec,
        text=text_encoder,
        batching=make(config.batching),
        reading=make(config.reading),
        cache=config.paths.cache,
        further=Further(
            tags=any(auxiliary.needs_tags for auxiliary in auxiliaries.values()),
            views=next((auxiliary.views for auxiliary in auxiliaries.values() if auxiliary.views), None),
            augmentations=[make(node) for node in config.get("augmentation", {}).values()] if config.fit else [],
        ),
    )
    trainer = _trainer(job)
    if config.fit:
        _prepare(job, module, trainer)
    return Parts(module, data, trainer, make(config.features) if config.get("features") else None)


def _prepare(job: Job, module: RetrievalModule, trainer: Trainer) -> None:
    """What callbacks freeze before training; and what of the whole cannot be trained is refused."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Thawing):
            callback.prepare(module, epochs=job.config.trainer.max_epochs)
        if isinstance(callback, Modulation):
            callback.prepare(module)
    if job.config.image_encoder.get("weights"):
        check_folded(module.image_encoder)
    if job.config.trainer.get("sync_batchnorm") and module.image_encoder.still:
        raise ValueError(
            "trainer.sync_batchnorm exchanges the statistics that towers=[frozen_batch_norm] keeps: add "
            "trainer.sync_batchnorm=false, or leave frozen_batch_norm out"
        )
    check_batch_norm(
        module,
        chunked=module.step is not None,
        devices=trainer.world_size,
        synchronized=bool(job.config.trainer.get("sync_batchnorm")) and trainer.strategy.root_device.type != "cpu",
    )


def _auxiliaries(job: Job, image_encoder: ImageEncoder, alignment: Alignment) -> dict[str, Auxiliary]:
    """Made after the rest, which thus begins with the weights that it has without them; none where nothing is trained.

    Raises:
        ValueError: if one would train a frozen tower, or two want views of their own.
    """
    if not (job.config.fit and job.config.get("auxiliary")):
        return {}
    width = embedded_width(alignment, image_encoder.spec)
    # in one order, however they were typed: a resume finds the optimizer's states by place
    nodes = sorted((str(name), node) for name, node in job.config.auxiliary.items())
    made: dict[str, Auxiliary] = {name: make(node, image=image_encoder.spec, width=width) for name, node in nodes}
    views = [name for name, auxiliary in made.items() if auxiliary.views]
    if views and image_encoder.frozen:
        raise ValueError(
            f"auxiliary=[{views[0]}] trains the image encoder, which is frozen: take image_encoder.freeze=false, or "
            "leave it out"
        )
    if len(views) > 1:
        raise ValueError(f"auxiliary=[{','.join(views)}]: each makes views of its own; take one of them")
    return made


@torch.no_grad()
def embedded_width(alignment: Alignment, image: ImageSpec) -> int:
    """E of the vectors that it pools."""
    training = alignment.training
    nothing = Encoded(torch.zeros(1, 1, image.dim), torch.zeros(1, image.dim), torch.ones(1, 1, dtype=torch.bool))
    width = alignment.eval().embed_image(nothing).pooled.shape[1]
    alignment.train(training)
    return int(width)


def make(node: DictConfig, **runtime: Any) -> Any:
    """The object that a node of the configuration names, given what is known at run time only."""
    return instantiate(node, _convert_="all", **runtime)


def _trainer(job: Job) -> Trainer:
    config, directory = job.config, str(job.directory)
    check_trainer(job.plain)
    loggers, watching = trackers(job)
    callbacks = [
        make(node, dirpath=f"{directory}/checkpoints") if name == "checkpoint" else make(node)
        for name, node in config.callbacks.items()
    ]
    if config.trainer.enable_progress_bar:
        callbacks.append(RichProgressBar())
    callbacks += [
        SoundTraining(directory=job.directory),
        *watching,
        Curves(),
        StatusFile(path=job.directory / "status.json"),
        ResumePoint(path=job.resume_point, minutes=config.resume_minutes),
    ]
    # Writing to memory that is about to be written anyway helps to find bugs, and costs a twentieth of a CPU's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()
    allow_tf32(False)
    profiler = profiler_of(config.trainer.get("profiler"), directory=directory)
    trainer: Trainer = make(
        config.trainer, logger=loggers, callbacks=callbacks, default_root_dir=directory, profiler=profiler
    )
    if trainer.precision != (asked := str(config.trainer.precision)) and asked.endswith("-mixed"):
        raise ValueError(f"trainer.precision={asked} does not exist on this accelerator; use bf16-mixed or 32-true")
    return trainer


def _rule(job: Job) -> str:
    monitor = OmegaConf.select(job.config, "callbacks.checkpoint.monitor")
    stops = OmegaConf.select(job.config, "callbacks.early_stopping.monitor")
    last = f"last epoch before early stopping on {stops}" if stops else "last epoch"
    return f"best {monitor}" if monitor else last
