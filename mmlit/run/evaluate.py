"""`mmlit evaluate`: runs, checkpoints and published pairs of towers, on any data, by any evaluator."""

import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from mmlit.configuration.binding import locate, problems
from mmlit.configuration.identity import config_hash
from mmlit.evaluation.probe import Probe, ProbeResult
from mmlit.model import Model, checkpoint_of, load
from mmlit.results.atomic import write_atomically
from mmlit.results.entries import fingerprint
from mmlit.results.evaluations import FILE_NAME as EVALUATION_NAME
from mmlit.results.provenance import code, environment
from mmlit.results.record import FILE_NAME, append_evaluation, read_record
from mmlit.run.fit import run
from mmlit.run.job import Job, evaluation_job, job_of
from mmlit.run.parts import make
from mmlit.run.words import composed

log = logging.getLogger(__name__)
#: folder of a run that keeps what it was evaluated on later
FOLDER = "evaluations"
#: a published pair: its own projections, and nothing in between
_PUBLISHED = ("alignment=contrastive", "alignment.image_head=identity", "alignment.text_head=identity")


class Planned(NamedTuple):
    """A subject, what is to be run, and the folder of the run whose record it belongs to."""

    subject: Path
    job: Job
    owner: Path | None


def planned(subjects: Sequence[Path], overrides: Sequence[str]) -> list[Planned]:
    """What is to be evaluated, with all that can be refused before anything runs.

    Args:
        subjects: folders of runs, checkpoints, or directories of a CLIP or SigLIP pair as Hugging Face lays them out.
        overrides: Hydra overrides, e.g. `data=flickr8k`, `split=val`, `evaluator=coco_1k`.

    Raises:
        FileNotFoundError: if a subject does not exist.
        ValueError: if a folder is neither a run nor a published pair, or an option is wrong.
    """
    paths = [Path(subject).expanduser() for subject in subjects]
    if others := [path for path in paths if len(paths) > 1 and _is_beside_runs(path)]:
        log.info("not runs, left out: %s", ", ".join(path.name for path in others))
        paths = [path for path in paths if path not in others] or paths
    found = [_planned(path, overrides) for path in paths]
    for each in found:
        if wrong := problems(each.job.plain):
            raise ValueError("; ".join(wrong))
        if each.job.config.trainer.devices != 1:  # its other processes would run this command anew
            raise ValueError(
                f"trainer.devices={each.job.config.trainer.devices}: mmlit evaluate works on one device; several take "
                "python train.py fit=false checkpoint=..."
            )
    return found


def evaluate(each: Planned) -> tuple[Path, dict[str, float]]:
    """Evaluates one subject and appends the numbers to its record.

    Returns:
        The folder of its detailed results, and its metrics.

    Raises:
        ValueError: whatever a run refuses; no folder is left behind.
    """
    job, owner = each.job, each.owner
    try:
        entry = _probe(job) if _is_probe(job) else _retrieve(job)
    finally:
        _remove_empty(job.directory, within=owner or Path(job.config.paths.outputs))
    if owner is not None:
        append_evaluation(owner, {**entry, "folder": job.directory.relative_to(owner).as_posix()})
    elif _is_probe(job):  # retrieval has written a record
        name = job.config.checkpoint or f"zero_shot {Path(job.config.image_encoder.name).name}"
        entry["options"]["weights"] = job.config.checkpoint or job.config.image_encoder.name
        content = json.dumps({**entry, "folder": name}, indent=2)
        write_atomically(job.directory / EVALUATION_NAME, f"{content}\n".encode())
    return job.directory, entry["metrics"]


def _remove_empty(folder: Path, *, within: Path) -> None:
    """A folder in which nothing was written, and those above it that held nothing else, up to `within`."""
    while folder != within and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _is_beside_runs(path: Path) -> bool:
    """Whether a sweep, or `mmlit compare`, left it in the folder of its runs: `outputs/SWEEP/*` names it, too."""
    if path.is_file():
        return path.suffix in (".yaml", ".png", ".md", ".csv", ".tex", ".html")
    return path.name in ("galleries", "features", "cache")


def _planned(subject: Path, overrides: Sequence[str]) -> Planned:
    if not subject.exists():
        raise FileNotFoundError(f"{subject}: no such run, checkpoint or directory")
    if subject.is_dir() and (subject / "config.json").is_file():
        return Planned(subject, _in_own_folder(_published_job(subject, overrides)), None)
    checkpoint = checkpoint_of(subject)
    config = _compose(overrides)
    OmegaConf.update(config, "checkpoint", str(checkpoint))
    job = evaluation_job(job_of(config))
    owner = checkpoint.parent.parent
    if not (owner / FILE_NAME).is_file():
        return Planned(subject, _in_own_folder(job), None)
    read_record(owner / FILE_NAME)  # refused now rather than after the work
    plain = {key: value for key, value in job.plain.items() if key != "checkpoint"}
    parts = [job.choices["evaluator"]] if _is_probe(job) else [job.choices["data"], job.choices["evaluator"]]
    name = "-".join([*map(str, parts), config_hash(plain)])
    return Planned(subject, job._replace(folder=owner / FOLDER / name), owner)


def _in_own_folder(job: Job) -> Job:
    """A probe's folder, where there is no run that it belongs to, is named by what is asked: it sees no `data`."""
    if not _is_probe(job):
        return job
    name = f"{job.choices['evaluator']}-{job.choices['alignment']}-{config_hash(job.plain)}"
    return job._replace(folder=Path(job.config.paths.outputs) / name)


def _compose(overrides: Sequence[str]) -> DictConfig:
    return composed([*overrides, "fit=false", "logger=[]"])


def _published_job(directory: Path, overrides: Sequence[str]) -> Job:
    kind = str(json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type"))
    if kind not in ("clip", "siglip"):
        raise ValueError(f"{directory} is a {kind} model: only a CLIP or SigLIP pair is whole without training")
    towers = [f"{tower}_encoder={kind}" for tower in ("image", "text")]
    config = _compose([*towers, *_PUBLISHED, *overrides])
    for tower in ("image_encoder", "text_encoder"):
        config[tower].name, config[tower].projection = str(directory), kind == "clip"
    OmegaConf.update(config, "alignment.dim", None)
    job = job_of(config)
    return job._replace(choices={**job.choices, "alignment": "zero_shot"})


def _is_probe(job: Job) -> bool:
    return issubclass(locate(job.config.evaluator["_target_"]), Probe)


def _retrieve(job: Job) -> dict[str, Any]:
    record = read_record(run(job) / FILE_NAME)
    gallery = record.gallery
    return _entry(
        job,
        data=job.choices["data"],
        split=record.split,
        scored=record.scored,
        protocol=record.protocol.model_dump(),
        counts={"images": gallery.images, "texts": gallery.texts},
        asked=gallery.hash,
        metrics=record.metrics.model_dump(),
        seconds=record.cost.evaluation_seconds,
    )


def _probe(job: Job) -> dict[str, Any]:
    device = _device(job)
    model = load(job.config.checkpoint, device=device) if job.config.checkpoint else _published(job).to(device)
    start = time.perf_counter()
    result: ProbeResult = make(job.config.evaluator).evaluate(model)
    seconds = time.perf_counter() - start
    asked = sha256("|".join(f"{name}{len(right)}" for name, right in result.items.items()).encode()).hexdigest()
    entry = _entry(
        job,
        data=None,
        split=None,
        scored=result.scored,
        protocol=result.protocol,
        counts=result.counts,
        asked=asked,
        metrics=result.metrics,
        seconds=seconds,
    )
    write_atomically(
        job.directory / "items.npz",
        lambda file: np.savez_compressed(file, **result.items),  # type: ignore[arg-type]
    )
    return entry


def _entry(job: Job, *, asked: str, metrics: dict[str, float], **facts: Any) -> dict[str, Any]:
    """One entry of a record's `evaluations`."""
    evaluator = str(job.choices["evaluator"])
    rules = {key: facts[key] for key in ("split", "protocol", "counts")}
    return {
        "evaluator": evaluator,
        **facts,
        "fingerprint": fingerprint(evaluator=evaluator, asked=asked, **rules),
        "metrics": metrics,
        "options": {"evaluator": job.plain["evaluator"], "data": job.plain["data"]},
        "environment": environment(device=str(_device(job)), threads=torch.get_num_threads()),
        "code": code(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _device(job: Job) -> torch.device:
    wanted = job.config.trainer.accelerator in ("gpu", "cuda", "auto")
    return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")


def _published(job: Job) -> Model:
    image_encoder, text_encoder = make(job.config.image_encoder), make(job.config.text_encoder)
    alignment = make(job.config.alignment, image=image_encoder.spec, text=text_encoder.spec)
    for _, node in sorted((job.config.get("towers") or {}).items()):
        make(node).apply(image_encoder, text_encoder)
    return Model(image_encoder=image_encoder, text_encoder=text_encoder, alignment=alignment).eval()
