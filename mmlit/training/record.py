"""What a finished run has to say, as the plain containers of a record."""

import math
import resource
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from mmlit.data.datamodule import PairsDataModule
from mmlit.evaluation.diagnostics import diagnose
from mmlit.evaluation.retrieval import RetrievalResult
from mmlit.layers.similarity import Temperature
from mmlit.results.provenance import code, environment
from mmlit.results.record import SCHEMA_VERSION
from mmlit.training.curves import curves_of
from mmlit.training.module import RetrievalModule


def ranks_of(result: RetrievalResult) -> dict[str, np.ndarray]:
    """The arguments of `mmlit.results.ranks.write_ranks`: ranks, the ten best as ids, and all ids."""
    ranking, gallery = result.ranking, result.gallery
    arrays = {
        "i2t_rank": ranking.i2t_rank,
        "i2t_top": _as_ids(ranking.i2t_top, gallery.text_id),
        "t2i_rank": ranking.t2i_rank,
        "t2i_top": _as_ids(ranking.t2i_top, gallery.image_id),
        "image_id": gallery.image_id,
        "text_id": gallery.text_id,
        "text_image_id": gallery.text_image_id,
    }
    # torchmetrics makes scalars of what has one element
    return {name: torch.atleast_1d(array).cpu().numpy() for name, array in arrays.items()}


def record_of(
    trainer: Trainer, module: RetrievalModule, data: PairsDataModule, result: RetrievalResult
) -> dict[str, Any]:
    """Everything of a record but its identity (configuration, seed) and its seconds."""
    training, arrays = module.origin["training"], ranks_of(result)
    digests = "".join([*training["digests"], data.readers["test"].captions.digest])
    ids = b"".join(arrays[name].tobytes() for name in ("image_id", "text_id", "text_image_id"))
    return {
        "schema": SCHEMA_VERSION,
        "split": str(data.names["test"]),
        "selection": module.origin["selection"],
        "validation": module.validation,
        "scored": result.scored,
        "protocol": result.protocol,
        "gallery": {
            "images": len(arrays["image_id"]),
            "texts": len(arrays["text_id"]),
            "hash": sha256(ids).hexdigest()[:16],
        },
        "data": {
            "hash": sha256(digests.encode()).hexdigest()[:16],
            "train_pairs": training["pairs"],
            "train_images": training["images"],
        },
        "budget": module.budget._asdict(),
        "metrics": result.metrics,
        "parameters": _parameters(module),
        "cost": {"peak_memory_mib": _peak_memory(trainer)},
        "environment": environment(device=_device_name(trainer), threads=torch.get_num_threads()),
        "code": code(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "diagnostics": _diagnostics(module, data, result),
        "curves": curves_of(trainer),
    }


def _diagnostics(module: RetrievalModule, data: PairsDataModule, result: RetrievalResult) -> dict[str, float]:
    """What the embeddings look like, and the temperature if one was learned here; nothing of a gallery of one."""
    if min(result.gallery.image_id.numel(), result.gallery.text_id.numel()) < 2:
        return {}
    captions = data.readers["test"].captions
    num_words = dict(
        zip(captions.text_id.tolist(), (len(text.as_py().split()) for text in captions.texts), strict=True)
    )
    ids = torch.atleast_1d(result.gallery.text_id).tolist()
    found = diagnose(result.gallery, result.ranking, num_words=torch.tensor([num_words[text] for text in ids]))
    temperature = getattr(module.alignment, "temperature", None)
    if isinstance(temperature, Temperature) and module.budget.pairs_seen:
        found["temperature"] = math.exp(-temperature.log_scale.item())
    return found


def _as_ids(index: Tensor, ids: Tensor) -> Tensor:
    """Numbers in the gallery → ids; −1 stays."""
    return torch.atleast_1d(ids)[index.clamp_min(0)].masked_fill(index < 0, -1)


def _parameters(module: RetrievalModule) -> dict[str, int]:
    """Of what is evaluated: auxiliaries are gone by then."""
    parts = (module.image_encoder, module.text_encoder, module.alignment)
    sizes = [(parameter.numel(), parameter.requires_grad) for part in parts for parameter in part.parameters()]
    return {
        "total": sum(size for size, _ in sizes),
        "trainable": sum(size for size, trains in sizes if trains),
    }


def _peak_memory(trainer: Trainer) -> float:
    """MiB: of the device where it is a GPU, otherwise of this process."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{trainer.world_size} x {name}"
