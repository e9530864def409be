"""Scoring all pairs of a batch by cross-attention: from Gram matrices against forming every attended vector.

`python benchmarks/cross_attention.py` alternates the two on the same inputs, one thread, and prints medians as ratios.
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mmlit.alignments.cross_attention import CrossAttention
from mmlit.contracts import Encoded, ImageSpec, TextSpec

ROUNDS = 7
SHAPES = {"scenes (16 patches, 12 words)": (64, 16, 12), "photographs (49 patches, 15 words)": (64, 49, 15)}


def formed(alignment: CrossAttention, image: Encoded, text: Encoded) -> Tensor:
    """The same score with an ordinary softmax, and the attended vectors of all pairs in memory."""
    local = [_side(alignment, text, image, 0), _side(alignment, image, text, 1).transpose(0, 1)]
    return 0.5 * image.pooled @ text.pooled.T + 0.25 * (local[0] + local[1])


def _side(alignment: CrossAttention, asking: Encoded, asked: Encoded, direction: int) -> Tensor:
    query, _, _ = alignment._heads(asking)
    _, key, value = alignment._heads(asked)
    logits = torch.einsum("athd,bshd->bahts", query, key) * alignment._sharpness(direction)
    attended = torch.einsum("bahts,bshd->bathd", logits.softmax(-1), value)
    return torch.cosine_similarity(attended, query, dim=-1).mean((-1, -2))


def timed(call: Callable[[], Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    call().square().mean().backward()
    return time.perf_counter() - start


def measure(batch: int, patches: int, words: int) -> tuple[float, float, float]:
    """Median seconds of both ways, and the largest difference of their scores."""
    torch.manual_seed(0)
    alignment = CrossAttention(
        image=ImageSpec(128, 32, "squash", "bilinear"), text=TextSpec(128, 100, None, (), 48),
        dim=128, image_head="linear", text_head="linear", token_dim=128, num_heads=2, dropout=0.0,
        sharpness=9.0, temperature=0.07, learn_temperature=True,
    )  # fmt: skip
    image, text = (
        Encoded(torch.randn(batch, count, 128), torch.randn(batch, 128), torch.ones(batch, count).bool())
        for count in (patches, words)
    )

    def run(score: Callable[[Encoded, Encoded], Tensor]) -> Tensor:
        return score(alignment.embed_image(image), alignment.embed_text(text))

    ways = [lambda: run(alignment.score), lambda: run(lambda i, t: formed(alignment, i, t))]
    difference = (ways[0]() - ways[1]()).abs().max().item()
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for times, way in zip(seconds, ways, strict=True):
            times.append(timed(way))
    return *map(statistics.median, seconds), difference  # type: ignore[return-value]


def main() -> None:
    """Prints a table, and last one line of JSON."""
    torch.set_num_threads(1)
    results = []
    print(f"{'shape':<36} {'Gram (s)':>9} {'formed (s)':>11} {'ratio':>6} {'difference':>11}")
    for name, shape in SHAPES.items():
        gram, whole, difference = measure(*shape)
        print(f"{name:<36} {gram:9.3f} {whole:11.3f} {whole / gram:6.2f} {difference:11.1e}")
        ratio = whole / gram
        results.append({"name": name, "value": round(ratio, 2), "goal": ">= 1.5", "met": ratio >= 1.5})
    print(json.dumps({"benchmark": "cross_attention", "results": results}))


if __name__ == "__main__":
    main()
