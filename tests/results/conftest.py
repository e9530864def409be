"""Runs made by hand: four images with two texts each, unless a test brings its own ranks."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlit.results.ranks import write_ranks
from mmlit.results.record import write_record

IMAGE_ID = (10, 20, 30, 40)
TEXT_ID = (1, 2, 3, 4, 5, 6, 7, 8)
TEXT_IMAGE_ID = (10, 10, 20, 20, 30, 30, 40, 40)

RECORD: dict[str, Any] = {
    "schema": 1,
    "config": {
        "seed": 0,
        "paths": {"data": "/data", "output": "/outputs/0"},
        "alignment": {"_target_": "mmlit.alignments.joint.Joint", "margin": 0.2},
        "data": {"root": "/data/scenes", "batch_size": 128, "num_workers": 2, "split_seed": 0},
        "optimizer": {"lr": 1e-3},
        "callbacks": {"checkpoint": {"dirpath": "/outputs/0/checkpoints"}},
    },
    "choices": {"alignment": "joint", "data": "scenes", "image_encoder": "tiny", "logger": "csv"},
    "overrides": ["alignment=joint", "seed=0"],
    "config_hash": "0123456789ab",
    "seed": 0,
    "split": "test",
    "selection": "best val/rsum, epoch 7",
    "scored": "full",
    "protocol": {"name": "retrieval", "ks": [1, 5, 10], "ties": "against the model"},
    "gallery": {"images": 4, "texts": 8, "hash": "gallery-a"},
    "data": {"hash": "data-a", "train_pairs": 20480, "train_images": 4096},
    "budget": {"epochs": 10, "steps": 320, "pairs_seen": 40960},
    "metrics": {},
    "parameters": {"total": 912345, "trainable": 812345},
    "cost": {"fit_seconds": 61.2, "evaluation_seconds": 3.4, "peak_memory_mib": 812.0},
    "environment": {
        "python": "3.11.9",
        "torch": "2.8.0",
        "lightning": "2.6.4",
        "mmlit": "0.1.0",
        "device": "cpu",
        "threads": 2,
    },
    "code": {"commit": "abc123", "dirty": False, "hash": "code-a"},
    "finished": "2026-11-21T05:10:11+00:00",
}


def metrics_of(i2t_rank: Sequence[int], t2i_rank: Sequence[int]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for direction, rank in (("i2t", np.array(i2t_rank)), ("t2i", np.array(t2i_rank))):
        metrics |= {f"{direction}_r{k}": 100 * float((rank <= k).mean()) for k in (1, 5, 10)}
    metrics["rsum"] = sum(metrics.values())
    medians = {"i2t_median_rank": float(np.median(i2t_rank)), "t2i_median_rank": float(np.median(t2i_rank))}
    return metrics | medians


@pytest.fixture
def record() -> dict[str, Any]:
    """A valid record, to be changed at will."""
    return copy.deepcopy(RECORD) | {"metrics": metrics_of([1] * 4, [1] * 8)}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write one run below `tmp_path/runs`; `change` gets the record before it is written."""

    def make(
        name: str,
        *,
        alignment: str = "joint",
        seed: int = 0,
        i2t_rank: Sequence[int] = (1, 1, 1, 1),
        t2i_rank: Sequence[int] = (1, 1, 1, 1, 1, 1, 1, 1),
        image_id: Sequence[int] = IMAGE_ID,
        text_id: Sequence[int] = TEXT_ID,
        text_image_id: Sequence[int] = TEXT_IMAGE_ID,
        i2t_top: object = -1,
        t2i_top: object = -1,
        change: Callable[[dict[str, Any]], object] | None = None,
    ) -> Path:
        record = copy.deepcopy(RECORD)
        record["choices"]["alignment"] = alignment
        record["config"]["alignment"]["_target_"] = f"mmlit.alignments.{alignment}"
        record["config"]["seed"] = record["config"]["data"]["split_seed"] = record["seed"] = seed
        record["config"]["paths"]["output"] = f"/outputs/{name}"
        record["config"]["callbacks"]["checkpoint"]["dirpath"] = f"/outputs/{name}/checkpoints"
        record["gallery"] |= {"images": len(image_id), "texts": len(text_id)}
        record["metrics"] = metrics_of(i2t_rank, t2i_rank)
        if change is not None:
            change(record)
        directory = tmp_path / "runs" / name
        write_ranks(
            directory,
            i2t_rank=i2t_rank,
            i2t_top=np.broadcast_to(i2t_top, (len(image_id), 10)),
            t2i_rank=t2i_rank,
            t2i_top=np.broadcast_to(t2i_top, (len(text_id), 10)),
            image_id=image_id,
            text_id=text_id,
            text_image_id=text_image_id,
        )
        write_record(directory, record)
        return directory

    return make
