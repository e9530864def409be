"""Contrastive losses of large batches, forward and backward: this project's tiles against `open_clip`'s losses.

`python benchmarks/contrastive_memory.py` takes unit vectors of width 512 in batches of 4,096 to 32,768 (the peers, with
their matrices of all pairs, only up to 16,384), alternates the ways in one run and prints medians. Each measurement has
a process of its own: the second of two calls is timed, and memory is the process's peak beyond what it held before the
first, so without the embeddings, but with their gradients. `--full` repeats more often.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor

from mmlit.contracts import Batch, Pairs
from mmlit.layers.similarity import pooled_only
from mmlit.losses.sigmoid import sigmoid
from mmlit.losses.tiled_info_nce import tiled_info_nce

Way = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

DIM, SIZES, LARGEST_OF_PEERS = 512, (4096, 8192, 16384, 32768), 16384
LOG_SCALE, BIAS = math.log(1 / 0.07), -10.0
#: each of this project's ways, its peer, and how much longer it may take
RIVALS = {"mmlit InfoNCE": ("open_clip ClipLoss", 1.1), "mmlit sigmoid": ("open_clip SigLipLoss", 1.2)}


class Measured(NamedTuple):
    """One way's loss, seconds of forward and backward, and MiB beyond the embeddings."""

    loss: float
    seconds: float
    memory: float


def pairs_of(image: Tensor, text: Tensor) -> Pairs:
    """A batch of one caption per image on one device."""
    ids = torch.arange(len(image))
    one, other = pooled_only(image), pooled_only(text)
    batch = Batch(one, ids, ids[:, None], ids[:, None] >= 0, other, ids, ids)
    return Pairs(one, other, one, other, 0, 0, ids, ids, ids, batch)


def info_nce(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """As `alignment=contrastive` has it; `bias` is not used."""
    i2t, t2i = tiled_info_nce(pairs_of(image, text), scale)
    return 0.5 * i2t.mean() + 0.5 * t2i.mean()


def pairwise_sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """As `alignment=sigmoid` has it."""
    return sigmoid(pairs_of(image, text), scale, bias).mean()


def clip_loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The peer of `info_nce`; `bias` is not used."""
    loss: Tensor = ClipLoss()(image, text, scale)
    return loss


def siglip_loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The peer of `pairwise_sigmoid`."""
    loss: Tensor = SigLipLoss()(image, text, scale, bias)
    return loss


WAYS: dict[str, Way] = {
    "mmlit InfoNCE": info_nce,
    "open_clip ClipLoss": clip_loss,
    "mmlit sigmoid": pairwise_sigmoid,
    "open_clip SigLipLoss": siglip_loss,
}


def leaves(size: int) -> list[Tensor]:
    """Images, texts with the noise of a half-trained model, log scale and bias, all wanting gradients."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.empty(2, size, DIM).normal_(generator=generator).unbind()
    text.mul_(3).add_(image)
    for side in (image, text):
        side.div_(torch.linalg.vector_norm(side, dim=1, keepdim=True))
    return [leaf.requires_grad_() for leaf in (image, text, torch.tensor(LOG_SCALE), torch.tensor(BIAS))]


def step(way: Way, given: list[Tensor]) -> tuple[float, float]:
    """Loss and seconds of one forward and backward pass."""
    for leaf in given:
        leaf.grad = None
    start = time.perf_counter()
    loss = way(given[0], given[1], given[2].exp(), given[3])
    loss.backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - start
    return loss.item(), seconds


def measured(way: Way, size: int) -> Measured:
    """Two calls in a process of their own, so that the highest memory is theirs."""
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(way, size, send))
    child.start()
    send.close()
    try:
        result: Measured = receive.recv()
    except EOFError:
        raise SystemExit(f"{way.__name__} of {size} pairs ended without a result: is there memory for it?") from None
    child.join()
    return result


def _child(way: Way, size: int, send: Connection) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    step(way, leaves(512))  # what is imported and set up once
    given = leaves(size)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    step(way, given)
    loss, seconds = step(way, given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    send.send(Measured(loss, seconds, (peak - before) / 2**20))


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="seven rounds in place of three")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="batch sizes (default: 4096 … 32768)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process that has started threads cannot be forked safely
    found: dict[tuple[int, str], Measured] = {}
    print(f"{'batch':>6}  {'':<22}{'seconds':>9}{'ns/pair':>9}{'MiB':>8}{'loss':>12}")
    for size in options.sizes:
        names = [name for name in WAYS if size <= LARGEST_OF_PEERS or name in RIVALS]
        runs: dict[str, list[Measured]] = {name: [] for name in names}
        for _ in range(7 if options.full else 3):
            for name in names:
                runs[name].append(measured(WAYS[name], size))
        for name, each in runs.items():
            middle = Measured(*(statistics.median(values) for values in zip(*each, strict=True)))
            found[size, name] = middle
            per_pair = 1e9 * middle.seconds / size**2
            print(
                f"{size:>6}  {name:<22}{middle.seconds:>9.2f}{per_pair:>9.1f}{middle.memory:>8.0f}{middle.loss:>12.6f}"
            )
    print(json.dumps({"benchmark": "contrastive_memory", "results": results(found)}))


def results(found: dict[tuple[int, str], Measured]) -> list[dict[str, object]]:
    """What was asked: ratios to the peers, and the memory of the largest batch."""
    lines = []
    for (size, name), own in found.items():
        if name not in RIVALS:
            continue
        peer, slower = RIVALS[name]
        if (size, peer) in found:
            other = found[size, peer]
            if abs(own.loss / other.loss - 1) > 1e-5:
                raise SystemExit(f"{name} and {peer} disagree at batch {size}: {own.loss} and {other.loss}")
            lines.append(_line(f"time / {peer}, batch {size}", own.seconds / other.seconds, slower))
            most = 1 / 8 if size == LARGEST_OF_PEERS else None
            lines.append(_line(f"memory / {peer}, batch {size}", own.memory / other.memory, most))
        else:
            most = 2.0 if size == SIZES[-1] else None
            lines.append(_line(f"GiB of {name}, batch {size}", own.memory / 1024, most))
    return lines


def _line(name: str, value: float, most: float | None) -> dict[str, object]:
    goal, met = (None, None) if most is None else (f"<= {most}", value <= most)
    return {"name": name, "value": round(value, 3), "goal": goal, "met": met}


if __name__ == "__main__":
    main()
