"""How costs grow with the data and shrink with devices.

`python benchmarks/scaling.py` makes data sets of a thousand to a million pairs (five captions to an image, as in COCO;
every picture is the same small JPEG) and measures for each: opening it through the data module for the first time and
then again in a new process, what a reading process's memory grows by in one pass over all captions (see
`annotations.py`), the first batch of an epoch, and a step of training with reading. Then small towers train on a fixed
global batch of 256 in one process and in two (gloo), one thread each: the losses must agree; `ideal` is what the
batch's halves take alone, without the other device. `--full` takes more steps and more rounds.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from annotations import memory, opened, write
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmlit.alignments.contrastive import Contrastive
from mmlit.contracts import Batch, Pairs
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.gathering import gather_encoded, gather_ids, global_mean

PAIRS, PER_IMAGE, STEPS = (1_000, 10_000, 100_000, 1_000_000), 5, 15
GLOBAL_BATCH, WORLDS = 256, (1, 2)


class Training(nn.Module):
    """Small towers and a contrastive loss over every device's rows."""

    def __init__(self, *, size: int, dim: int, vocabulary_size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image_encoder = TinyImageEncoder(size=size, dim=dim, num_layers=1, freeze=False)
        self.text_encoder = TinyTextEncoder(
            vocabulary_size=vocabulary_size, max_length=64, dim=dim, num_layers=1, freeze=False
        )
        self.alignment = Contrastive(
            image=self.image_encoder.spec, text=self.text_encoder.spec, dim=dim, image_head="linear",
            text_head="linear", dropout=0.0, temperature=0.07, learn_temperature=True, label_smoothing=0.0,
            hardness=0.0, decoupled=False,
        )  # fmt: skip

    def forward(self, batch: Batch) -> Tensor:
        """The loss."""
        own_image, image, image_offset = gather_encoded(self.alignment.embed_image(self.image_encoder(batch.image)))
        encoded = self.text_encoder(batch.token_ids, batch.token_mask)
        own_text, text, text_offset = gather_encoded(self.alignment.embed_text(encoded))
        pairs = Pairs(own_image, own_text, image, text, image_offset, text_offset, batch=batch, **gather_ids(batch))
        return torch.stack(list(global_mean(self.alignment.losses(pairs)).values())).sum()


def stepping(module: nn.Module, batches: Iterator[Batch], count: int) -> tuple[list[float], list[float]]:
    """Seconds and losses of `count` steps, reading included."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    seconds, losses = [], []
    for _ in range(count):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = module(next(batches))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return seconds, losses


def opening(root: Path, answer: Connection) -> None:
    """In a process of its own: seconds of opening it."""
    answer.send(opened(root)[0])


def reading(root: Path, steps: int, answer: Connection) -> None:
    """In a process of its own: seconds of opening, MiB of a worker, seconds to an epoch's first batch and of a step."""
    torch.set_num_threads(1)
    pa.array([""])  # imports what pyarrow may ask for: it is no memory of the data
    opened_in, data = opened(root)
    grown_by, _ = memory(data)
    module = Training(size=8, dim=32, vocabulary_size=30_000)
    loader = data.train_dataloader()

    def endless() -> Iterator[Batch]:
        while True:
            yield from loader

    batches = endless()
    start = time.perf_counter()
    next(batches)
    first = time.perf_counter() - start
    seconds, _ = stepping(module, batches, steps)
    answer.send((opened_in, grown_by, first, statistics.median(seconds)))


def device(rank: int, shares: int, meet: str, steps: int, answer: Connection | None) -> None:
    """Device `rank` of as many as the batch has shares; where they do not `meet`, this one trains on its own alone."""
    torch.set_num_threads(1)
    world = shares if meet else 1
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=world)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (GLOBAL_BATCH, 3, 32, 32), generator=generator).byte()
    words = torch.randint(3, 2048, (GLOBAL_BATCH, 12), generator=generator)
    rows = slice(rank, None, shares)
    ids = torch.arange(GLOBAL_BATCH)[rows]
    batch = Batch(pixels[rows], ids, words[rows], words[rows] > 0, None, ids, ids)
    module: nn.Module = Training(size=32, dim=128, vocabulary_size=2048)
    if world > 1:
        module = DistributedDataParallel(module)
    seconds, own = stepping(module, iter([batch] * steps), steps)
    losses = torch.tensor(own)
    if world > 1:  # each device's is its own rows' share, scaled so that their mean is the batch's
        dist.all_reduce(losses)
        losses /= world
    if answer is not None:
        answer.send((statistics.median(seconds[2:]), losses.tolist()))
    if world > 1:
        dist.destroy_process_group()


def answered(target: Any, *arguments: Any) -> Any:
    """What `target` sends from a new process."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    return found


def together(world: int, steps: int) -> tuple[float, list[float]]:
    """Seconds of a step on `world` devices, and the losses."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        others = [
            context.Process(target=device, args=(rank, world, f"{folder}/meet", steps, None))
            for rank in range(1, world)
        ]
        for other in others:
            other.start()
        found: tuple[float, list[float]] = answered(device, 0, world, f"{folder}/meet", steps)
        for other in others:
            other.join()
    return found


def grown(pairs: int, steps: int) -> dict[str, float]:
    """One data set's numbers by name."""
    picture = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(picture, "jpeg")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), None, num_images=pairs // PER_IMAGE, num_captions=pairs, picture=picture.getvalue())
        first = answered(opening, Path(folder))
        again, grown_by, batch, step = answered(reading, Path(folder), steps)
    return {
        "opening, first, s": first, "opening, later, s": again, "MiB a worker grows by": grown_by,
        "first batch, s": batch, "step, ms": 1000 * step,
    }  # fmt: skip


def main() -> None:
    """Prints two tables, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="four times the steps, three rounds of devices")
    parser.add_argument("--most", type=int, default=PAIRS[-1], help="pairs of the largest data set (%(default)s)")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    steps, results = STEPS * (4 if given.full else 1), []
    names: list[str] = []
    for pairs in (size for size in PAIRS if size <= given.most):
        found = grown(pairs, steps)
        if not names:
            names = list(found)
            print(f"{'pairs':>10}" + "".join(f"{name:>23}" for name in names))
        print(f"{pairs:>10,}" + "".join(f"{value:>23.2f}" for value in found.values()), flush=True)
        results += [line(f"{name}, {pairs} pairs", value) for name, value in found.items()]
    results += devices(steps, rounds=3 if given.full else 1)
    print(json.dumps({"benchmark": "scaling", "results": results}))


def devices(steps: int, *, rounds: int) -> list[dict[str, object]]:
    """Prints a line for each number of devices."""
    seconds: dict[str, list[float]] = {"1": [], "2": [], "ideal": []}
    for _ in range(rounds):
        found = {world: together(world, steps) for world in WORLDS}
        if not np.allclose(found[1][1], found[2][1], rtol=1e-3):
            raise SystemExit(f"the losses differ: {found[1][1]} on one device, {found[2][1]} on two")
        for world, (value, _) in found.items():
            seconds[str(world)].append(value)
        seconds["ideal"].append(answered(device, 0, 2, "", steps)[0])
    middle = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    print(f"\n{'devices':>10}{'ms/step':>10}{'ratio':>8}   global batch {GLOBAL_BATCH}")
    for name, value in middle.items():
        print(f"{name:>10}{value:>10.1f}{middle['1'] / value:>8.2f}")
    return [line(f"step, ms, {name} of devices", value) for name, value in middle.items()] + [
        line("speed of two devices / one", middle["1"] / middle["2"])
    ]


def line(name: str, value: float) -> dict[str, object]:
    """A number without a goal."""
    return {"name": name, "value": round(value, 3), "goal": None, "met": None}


if __name__ == "__main__":
    main()
