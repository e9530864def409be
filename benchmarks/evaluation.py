"""Recall at 1, 5 and 10 both ways, from embeddings: the evaluator against torchmetrics, clip_benchmark and dense NumPy.

`python benchmarks/evaluation.py` alternates them in one run and prints medians. Each measurement has a process of its
own, whose memory is counted beyond the embeddings. 5,000 images, 25,000 texts, width 512, on all cores; torchmetrics,
which loops over queries, has a fifth of both sides and is compared per pair. `--full` gives it a half, and repeats more
often.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmlit.contracts import Encoded
from mmlit.evaluation.ranking import Gallery, rank_all
from mmlit.layers.similarity import cosine, pooled_only

KS = (1, 5, 10)
DIM, CAPTIONS = 512, 5
BLOCKS = {"image_block": 2048, "text_block": 2048}
#: queries at a time in clip_benchmark, its command's default
BATCH = 64


class Measured(NamedTuple):
    """Recalls i2t then t2i in percent, seconds, MiB beyond the embeddings, share of the time in matrix products."""

    recalls: list[float]
    seconds: float
    memory: float
    products: float


def embeddings(num_images: int) -> tuple[Tensor, Tensor]:
    """Unit vectors; the noise of the texts puts recall where published models have it."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(num_images, DIM, generator=generator)
    text = image.repeat_interleave(CAPTIONS, 0) + 6 * torch.randn(num_images * CAPTIONS, DIM, generator=generator)
    return torch.nn.functional.normalize(image, dim=1), torch.nn.functional.normalize(text, dim=1)


def evaluator(image: Tensor, text: Tensor) -> tuple[list[float], float]:
    """This project's, and the share of its time in the score."""
    inside = 0.0

    def score(images: Encoded, texts: Encoded) -> Tensor:
        nonlocal inside
        start = time.perf_counter()
        scores = cosine(images.pooled, texts.pooled)
        inside += time.perf_counter() - start
        return scores

    numbers = torch.arange(len(text))
    gallery = Gallery(pooled_only(image), pooled_only(text), numbers[: len(image)], numbers, numbers // CAPTIONS)
    start = time.perf_counter()
    ranking = rank_all(score, gallery, **BLOCKS)
    whole = time.perf_counter() - start
    return [_percent(rank <= k) for rank in (ranking.i2t_rank, ranking.t2i_rank) for k in KS], inside / whole


def clip_benchmark(image: Tensor, text: Tensor) -> tuple[list[float], float]:
    """Its matrix of scores, its matrix of positives, its recall for each k."""
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    scores = text @ image.t()
    positives = torch.zeros_like(scores, dtype=torch.bool)
    positives[torch.arange(len(text)), torch.arange(len(text)) // CAPTIONS] = True
    return [
        _percent(batchify(recall_at_k, one, true, BATCH, "cpu", k=k) > 0)
        for one, true in ((scores.T, positives.T), (scores, positives))
        for k in KS
    ], float("nan")


def torchmetrics(image: Tensor, text: Tensor) -> tuple[list[float], float]:
    """Its hit rate (what this field calls recall) for each k, over all pairs."""
    from torchmetrics.retrieval import RetrievalHitRate

    scores, true = image @ text.T, torch.arange(len(image))[:, None] == torch.arange(len(text)) // CAPTIONS
    found = []
    for one, own in ((scores, true), (scores.T, true.T)):
        queries = torch.arange(len(one))[:, None].expand(one.shape)
        for k in KS:
            metric = RetrievalHitRate(top_k=k)
            found.append(100 * metric(one.flatten(), own.flatten(), indexes=queries.flatten()).item())
    return found, float("nan")


def dense(image: Tensor, text: Tensor) -> tuple[list[float], float]:
    """NumPy on the whole matrix: ranks as the number of wrong items that score at least as high, plus one."""
    scores = image.numpy() @ text.numpy().T
    texts = np.arange(len(text))
    true = scores[texts // CAPTIONS, texts].copy()
    best = true.reshape(-1, CAPTIONS).max(1)
    wrong = scores
    wrong[texts // CAPTIONS, texts] = -np.inf
    ranks = 1 + (wrong >= best[:, None]).sum(1), 1 + (wrong >= true).sum(0)
    return [100 * float((rank <= k).mean()) for rank in ranks for k in KS], float("nan")


def _percent(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()


def measured(way: Callable[[Tensor, Tensor], tuple[list[float], float]], image: Tensor, text: Tensor) -> Measured:
    """One call in a process of its own, so that the highest memory is this call's."""
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(way, image, text, send))
    child.start()
    send.close()
    result: Measured = receive.recv()
    child.join()
    return result


def _child(
    way: Callable[[Tensor, Tensor], tuple[list[float], float]], image: Tensor, text: Tensor, send: Connection
) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    way(image[:64], text[: 64 * CAPTIONS])  # what is imported and set up once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    recalls, products = way(image, text)
    seconds = time.perf_counter() - start
    send.send(
        Measured(recalls, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, products)
    )


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="five rounds in place of two, torchmetrics with a half")
    parser.add_argument("--images", type=int, default=5000, help="number of images (default: 5000)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process that has started threads cannot be forked safely
    ways = {"mmlit": evaluator, "dense NumPy": dense, "torchmetrics": torchmetrics, "clip_benchmark": clip_benchmark}
    sizes = dict.fromkeys(ways, options.images) | {"torchmetrics": options.images // (2 if options.full else 5)}
    given = {name: embeddings(size) for name, size in sizes.items()}
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in range(5 if options.full else 2):
        for name, way in ways.items():
            runs[name].append(measured(way, *given[name]))
    report(runs, {name: len(image) * len(text) for name, (image, text) in given.items()})


def report(runs: dict[str, list[Measured]], pairs: dict[str, int]) -> None:
    """The table and the line of JSON."""
    seconds = {name: statistics.median(run.seconds for run in each) for name, each in runs.items()}
    memory = {name: statistics.median(run.memory for run in each) for name, each in runs.items()}
    products = statistics.median(run.products for run in runs["mmlit"])
    print(f"{'':<16}{'pairs':>13}{'seconds':>9}{'ns/pair':>9}{'MiB':>8}  i2t R@1, 5, 10, t2i R@1, 5, 10")
    for name, each in runs.items():
        recalls = " ".join(f"{value:5.1f}" for value in each[0].recalls)
        per_pair = 1e9 * seconds[name] / pairs[name]
        print(f"{name:<16}{pairs[name]:>13,}{seconds[name]:>9.2f}{per_pair:>9.1f}{memory[name]:>8.0f}  {recalls}")
    print(f"matrix products: {products:.0%} of the evaluator's time")
    own = seconds["mmlit"] / pairs["mmlit"]
    results: list[tuple[str, float, str | None, bool | None]] = [
        ("time in matrix products", products, ">= 0.6", products >= 0.6)
    ]
    for name, least in (("torchmetrics", 10), ("clip_benchmark", 2), ("dense NumPy", None)):
        if name in runs:
            faster = seconds[name] / pairs[name] / own
            results.append((f"times faster than {name}", faster, *_goal(faster, least)))
            less = (memory[name] / pairs[name]) / (memory["mmlit"] / pairs["mmlit"])
            results.append((f"times less memory than {name}", less, *_goal(less, 10)))
    lines = [{"name": name, "value": round(value, 2), "goal": goal, "met": met} for name, value, goal, met in results]
    print(json.dumps({"benchmark": "evaluation", "results": lines}))


def _goal(value: float, least: float | None) -> tuple[str | None, bool | None]:
    return (None, None) if least is None else (f">= {least}", value >= least)


if __name__ == "__main__":
    main()
