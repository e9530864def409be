"""Fusion pairs per second when reranking: projecting a picture's patches for every pair, or once per picture.

`python benchmarks/rerank.py` lets texts rerank 32 pictures each, alternates the ways on the same inputs, one thread,
and prints medians. `reused` makes each layer's keys and values of a picture once, and the first layer's
self-attention, which sees no picture, once per text; the time of both is counted. `half` is `reused` from patches kept
in half precision; `streamed` reads those from a file, a text's candidates at a time. `--full` has more of everything.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlit.contracts import Encoded
from mmlit.layers.fusion import FusionEncoder

DIM, LAYERS, HEADS, CANDIDATES = 128, 2, 4, 32
SHAPES = {"scenes (16 patches, 12 words)": (16, 12), "photographs (49, 15)": (49, 15), "ViT-B/16 (196, 15)": (196, 15)}


class Task(NamedTuple):
    """As many pictures as texts, and each text's candidates (M,C)."""

    fusion: FusionEncoder
    image: Encoded
    text: Encoded
    near: Tensor


def task(patches: int, words: int, num_texts: int) -> Task:
    """Random tokens; texts of half as many words up to all of them."""
    torch.manual_seed(0)
    fusion = FusionEncoder(dim=DIM, num_layers=LAYERS, num_heads=HEADS, dropout=0.0).eval()
    lengths = torch.randint(words // 2, words + 1, (num_texts, 1))
    image, text = (
        Encoded(torch.randn(count, length, DIM), torch.randn(count, DIM), torch.ones(count, length).bool())
        for count, length in ((num_texts, patches), (num_texts, words))
    )
    text = text._replace(mask=torch.arange(words) < lengths)
    return Task(fusion, image, text, torch.randint(num_texts, (num_texts, CANDIDATES)))


def plain(given: Task) -> Tensor:
    """As the fusion encoder is: a batch of a text's pairs, everything made for each pair."""
    fused = []
    for number, near in enumerate(given.near):
        text = given.text.take(slice(number, number + 1)).trimmed()
        fused.append(given.fusion(given.image.take(near), text.take(torch.zeros_like(near))))
    return torch.stack(fused)


def reused(given: Task, tokens: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Keys and values once per picture; with `tokens`, which reads a text's candidates, once per text and candidate."""
    layers = list(given.fusion.layers.layers)
    keys_values = [] if tokens else [_project(layer, given.image.tokens) for layer in layers]
    fused = []
    for number, near in enumerate(given.near):
        text = given.text.take(slice(number, number + 1)).trimmed()
        if tokens is None:
            own = [part[near] for part in keys_values]
        else:
            patches = tokens(near).float()
            own = [_project(layer, patches) for layer in layers]
        fused.append(_fuse(given.fusion, text, own))
    return torch.stack(fused)


def _project(layer: nn.Module, tokens: Tensor) -> Tensor:
    """A layer's keys and values (B,2,heads,P,D/heads) of the patches (B,P,D)."""
    attention = cast("nn.MultiheadAttention", layer.multihead_attn)
    both = F.linear(tokens, attention.in_proj_weight[DIM:], attention.in_proj_bias[DIM:])
    return both.unflatten(-1, (2, HEADS, -1)).permute(0, 2, 3, 1, 4).contiguous()


def _fuse(fusion: FusionEncoder, text: Encoded, keys_values: list[Tensor]) -> Tensor:
    """One text with its candidates: (C,D)."""
    hidden = text.tokens
    layer: Any
    for layer, keys_value in zip(fusion.layers.layers, keys_values, strict=True):
        hidden = hidden + layer._sa_block(layer.norm1(hidden), None, None)
        attention = cast("nn.MultiheadAttention", layer.multihead_attn)
        query = F.linear(layer.norm2(hidden), attention.in_proj_weight[:DIM], attention.in_proj_bias[:DIM])
        query = query.unflatten(-1, (HEADS, -1)).transpose(1, 2).expand(len(keys_value), -1, -1, -1)
        read = F.scaled_dot_product_attention(query, keys_value[:, 0], keys_value[:, 1])
        hidden = hidden + attention.out_proj(read.transpose(1, 2).flatten(2))
        hidden = hidden + layer._ff_block(layer.norm3(hidden))
    return cast("nn.LayerNorm", fusion.layers.norm)(hidden).mean(1)


def ways(given: Task, file: str) -> dict[str, Callable[[], Tensor]]:
    """The four ways by name; the last two keep or read half precision."""
    half = given.image.tokens.half()
    kept = given._replace(image=given.image._replace(tokens=half))
    stored = np.memmap(file, dtype=np.float16, mode="w+", shape=tuple(half.shape))
    stored[:] = half.numpy()

    def widened() -> Tensor:
        return reused(kept._replace(image=kept.image._replace(tokens=kept.image.tokens.float())))

    return {
        "plain": lambda: plain(given),
        "reused": lambda: reused(given),
        "half": widened,
        "streamed": lambda: reused(kept, lambda near: torch.from_numpy(np.asarray(stored[near.numpy()]))),
    }


@torch.inference_mode()
def measure(given: Task, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Pairs per second of each way, and the largest difference of its fused vectors to the plain ones'."""
    with tempfile.NamedTemporaryFile() as file:
        each = ways(given, file.name)
        fused = {name: way() for name, way in each.items()}
        seconds: dict[str, list[float]] = {name: [] for name in each}
        for _ in range(rounds):
            for name, way in each.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    speed = {name: given.near.numel() / statistics.median(times) for name, times in seconds.items()}
    return speed, {name: (found - fused["plain"]).abs().max().item() for name, found in fused.items()}


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="512 texts and 9 rounds in place of 64 and 5")
    full = parser.parse_args().full
    torch.set_num_threads(1)
    results = []
    print(f"{'shape':<32}{'way':<10}{'pairs/s':>9}{'ratio':>7}{'difference':>12}{'KiB/picture':>13}")
    for name, (patches, words) in SHAPES.items():
        speed, difference = measure(task(patches, words, 512 if full else 64), 9 if full else 5)
        for way, value in speed.items():
            size = patches * DIM * (2 if way in ("half", "streamed") else 4) / 1024
            ratio = value / speed["plain"]
            print(f"{name:<32}{way:<10}{value:>9.0f}{ratio:>7.2f}{difference[way]:>12.1e}{size:>13.0f}")
            if way != "plain":
                results.append({"name": f"{way}, {name}", "value": round(ratio, 2), "goal": None, "met": None})
    print(json.dumps({"benchmark": "rerank", "results": results}))


if __name__ == "__main__":
    main()
