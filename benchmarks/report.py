"""The report of a large sweep: seconds and bytes for 500 made-up records, each with ranks and learning curves.

`python benchmarks/report.py` makes a grid of 4 alignments × 5 learning rates × 5 weight decays × 5 seeds on a gallery
of 1,000 images with 5,000 captions, then calls `mmlit compare --report` in a process of its own, as a user would.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mmlit.results.ranks import write_ranks
from mmlit.results.record import write_record

IMAGES, CAPTIONS = 1000, 5
POINTS = 200
RATES, DECAYS, SEEDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3), (0.0, 0.01, 0.05, 0.1, 0.2), range(5)
ALIGNMENTS = {"projection": (40, 2), "contrastive": (40, 2), "cross_attention": (110, 60), "joint": (140, 40)}


def write_runs(folder: Path, *, seeds: int = len(SEEDS)) -> int:
    """Writes the grid's runs below a folder; returns how many."""
    points = list(itertools.product(ALIGNMENTS, RATES, DECAYS, range(seeds)))
    for number, (alignment, rate, decay, seed) in enumerate(points):
        _write_run(folder / f"run{number}", alignment, rate, decay, seed)
    return len(points)


def _write_run(folder: Path, alignment: str, rate: float, decay: float, seed: int) -> None:
    generator = np.random.default_rng([list(ALIGNMENTS).index(alignment), int(rate * 1e6), int(decay * 1e3), seed])
    level = 1.5 + 0.2 * list(ALIGNMENTS).index(alignment) - 0.1 * abs(np.log(rate / 5e-4)) + 0.02 * generator.normal()
    shared = np.random.default_rng(0).normal(size=IMAGES)  # an image is as hard for all
    owner = np.repeat(np.arange(IMAGES), CAPTIONS)

    def ranks(hard: np.ndarray) -> np.ndarray:
        drawn = np.exp(3 + hard - level + 0.7 * generator.normal(size=hard.size))
        return np.clip(drawn, 1, IMAGES).astype(np.int64)

    i2t, t2i = ranks(shared), ranks(shared[owner])
    write_ranks(
        folder,
        i2t_rank=i2t,
        i2t_top=generator.integers(0, IMAGES * CAPTIONS, (IMAGES, 10)),
        t2i_rank=t2i,
        t2i_top=generator.integers(0, IMAGES, (IMAGES * CAPTIONS, 10)),
        image_id=np.arange(IMAGES),
        text_id=np.arange(IMAGES * CAPTIONS),
        text_image_id=owner,
    )
    write_record(folder, record(alignment, rate, decay, seed, metrics=_metrics(i2t, t2i), curves=_curves(generator)))


def record(
    alignment: str, rate: float, decay: float, seed: int, *, metrics: dict[str, float], curves: dict[str, Any]
) -> dict[str, Any]:
    """A record as a run leaves it."""
    typed = {"alignment": alignment, "optimizer.lr": rate, "optimizer.weight_decay": decay, "seed": seed}
    fit, evaluation = ALIGNMENTS[alignment]
    return {
        "schema": 1,
        "config": {
            "seed": seed,
            "alignment": {"_target_": f"mmlit.alignments.{alignment}"},
            "optimizer": {"lr": rate, "weight_decay": decay},
        },
        "choices": {"alignment": alignment, "data": "scenes", "optimizer": "adamw"},
        "overrides": [f"{key}={value}" for key, value in typed.items()],
        "config_hash": "0" * 12,
        "launch": {"config_name": "config", "config_dirs": []},
        "seed": seed,
        "split": "test",
        "selection": "last epoch, epoch 3",
        "scored": "full",
        "protocol": {"name": "retrieval", "ks": [1, 5, 10]},
        "gallery": {"images": IMAGES, "texts": IMAGES * CAPTIONS, "hash": "gallery"},
        "data": {"hash": "data", "train_pairs": 40960, "train_images": 8192},
        "budget": {"epochs": 3, "steps": 384, "pairs_seen": 24576},
        "metrics": metrics,
        "parameters": {"total": 700_000, "trainable": 700_000},
        "cost": {"fit_seconds": float(fit), "evaluation_seconds": float(evaluation), "peak_memory_mib": 800.0},
        "environment": {
            "python": "3.11", "torch": "2.8", "lightning": "2.6", "mmlit": "0.1", "device": "1 x cpu", "threads": 1,
        },
        "code": {"commit": None, "dirty": False, "hash": "code"},
        "finished": "2026-01-01T00:00:00+00:00",
        "curves": curves,
    }  # fmt: skip


def _metrics(i2t: np.ndarray, t2i: np.ndarray) -> dict[str, float]:
    both = (("i2t", i2t), ("t2i", t2i))
    found = {f"{way}_r{k}": 100 * float((rank <= k).mean()) for way, rank in both for k in (1, 5, 10)}
    return found | {"rsum": sum(found.values())} | {f"{way}_median_rank": float(np.median(rank)) for way, rank in both}


def _curves(generator: np.random.Generator) -> dict[str, Any]:
    steps = np.arange(2, 2 * POINTS + 1, 2)
    falling = np.exp(-steps / 100) + 0.02 * generator.normal(size=POINTS)
    rising = 300 * (1 - np.exp(-steps / 150)) + 3 * generator.normal(size=POINTS)
    curves = {"train/loss": falling, "val/rsum": rising, "val/i2t_r1": rising / 10, "val/t2i_r1": rising / 12}
    place = {"step": steps.tolist(), "epoch": [1] * POINTS}
    return {name: {**place, "value": values.round(4).tolist()} for name, values in curves.items()}


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="three rounds in place of one; the fastest counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        number = write_runs(runs)
        seconds, busy = min(_seconds(runs) for _ in range(3 if options.full else 1))
        size = (runs / "report.html").stat().st_size / 1e6
    print(f"{'records':>8}{'rows':>6}{'seconds':>9}{'of CPU':>8}{'MB':>7}")
    print(f"{number:>8}{number // len(SEEDS):>6}{seconds:>9.1f}{busy:>8.1f}{size:>7.2f}")
    results = [
        {"name": "seconds for 500 records", "value": round(seconds, 1), "goal": "<= 10", "met": seconds <= 10},
        {"name": "seconds of CPU", "value": round(busy, 1), "goal": None, "met": None},
        {"name": "megabytes of HTML", "value": round(size, 2), "goal": None, "met": None},
    ]
    print(json.dumps({"benchmark": "report", "results": results}))


def _seconds(runs: Path) -> tuple[float, float]:
    """Wall-clock seconds, and those that a core worked: on a busy machine they differ much."""
    command = [sys.executable, "-m", "mmlit.cli", "compare", str(runs), "--report", str(runs / "report.html")]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, busy


if __name__ == "__main__":
    main()
