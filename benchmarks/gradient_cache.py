"""What the gradient cache saves and costs: a step of 1,024 pairs as a whole and in chunks of 64.

`python benchmarks/gradient_cache.py` takes the towers of CLIP at a width and depth that two cores train in minutes
(a ViT of three layers, width 256, 16 × 16 patches of 96 px; a text transformer alike, 24 tokens), random pictures and
captions, and runs forward, InfoNCE and backward. `summed` adds up the gradients of 16 batches of 64, as accumulation
does: another gradient, but what the arithmetic of one pass costs in chunks. Each way has a process of its own; they
alternate, and medians count. `MiB` is the growth of a process's peak memory, `held` the same where the C library gives
freed memory back at once, so that only what tensors hold counts. `--full` measures more steps, and a batch of 2,048.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("full", "cached", "summed")
WIDTH = 9
BATCH, CHUNK, SIZE, DIM, LAYERS, WORDS = 1024, 64, 96, 256, 3, 24


def towers() -> Any:
    """Image encoder, text encoder, contrastive alignment with seeded random weights."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    from mmlit.alignments.contrastive import Contrastive
    from mmlit.contracts import Encoded, ImageEncoder, ImageSpec, TextEncoder, TextSpec

    shape = {"hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 4 * DIM}

    class Images(ImageEncoder):
        spec = ImageSpec(dim=DIM, size=SIZE, resize="squash", interpolation="bilinear")

        def __init__(self) -> None:
            super().__init__()
            self.tower = CLIPVisionModel(CLIPVisionConfig(**shape, image_size=SIZE, patch_size=16))

        def forward(self, pixels: Any) -> Encoded:
            found = self.tower(pixel_values=pixels.float() / 127.5 - 1)
            tokens = found.last_hidden_state[:, 1:]
            return Encoded(tokens, found.pooler_output, tokens.new_ones(tokens.shape[:2]).bool())

    class Texts(TextEncoder):
        spec = TextSpec(dim=DIM, vocabulary_size=1000, mask_id=None, special_ids=(0,), max_length=WORDS)

        def __init__(self) -> None:
            super().__init__()
            words = {"vocab_size": 1000, "max_position_embeddings": WORDS, "bos_token_id": 1, "eos_token_id": 999}
            self.tower = CLIPTextModel(CLIPTextConfig(**shape, **words))

        def tokenize(self, texts: Any) -> Any:
            words = torch.randint(1, 999, (len(texts), WORDS), generator=torch.Generator().manual_seed(1))
            words[:, -1] = 999
            return words, torch.ones_like(words).bool()

        def forward(self, ids: Any, mask: Any) -> Encoded:
            found = self.tower(input_ids=ids, attention_mask=mask)
            return Encoded(found.last_hidden_state, found.pooler_output, mask)

    torch.manual_seed(0)
    image, text = Images(), Texts()
    alignment = Contrastive(
        image=image.spec, text=text.spec, dim=DIM, image_head="linear", text_head="linear", dropout=0.0,
        temperature=0.07, learn_temperature=True, label_smoothing=0.0, hardness=0.0, decoupled=False,
    )  # fmt: skip
    return torch.nn.ModuleList([image, text, alignment])


def child(way: str, batch_size: int, file: str) -> None:
    """One way in this process: a step for each line that comes in, its seconds out; at the end memory and gradients."""
    import torch
    from torch import Tensor

    from mmlit.contracts import Batch, Encoded, Pairs
    from mmlit.training.gathering import global_mean
    from mmlit.training.gradient_cache import GradientCache

    module = towers()
    image_encoder, text_encoder, alignment = module
    generator = torch.Generator().manual_seed(1)
    ids = torch.arange(batch_size)
    pixels = torch.randint(256, (batch_size, 3, SIZE, SIZE), generator=generator).byte()
    batch = Batch(pixels, ids, *text_encoder.tokenize([""] * batch_size), None, ids, ids)
    cache = GradientCache(chunk_size=CHUNK)

    def rows(given: Batch, part: slice) -> Batch:
        return given._make(field[part] if isinstance(field, Tensor) else field for field in given)

    def loss(given: Batch, image: Encoded, text: Encoded) -> Tensor:
        own = given.image_id
        pairs = Pairs(
            image, text, image, text, 0, 0, own, own, own, batch=given, encode_image=cache.refuse(alignment),
            encode_text=cache.refuse(alignment),
        )  # fmt: skip
        return torch.stack(list(global_mean(alignment.losses(pairs)).values())).sum()

    def plain(given: Batch) -> Tensor:
        image, text = image_encoder(given.image), text_encoder(given.token_ids, given.token_mask)
        return loss(given, alignment.embed_image(image), alignment.embed_text(text))

    def step() -> None:
        module.zero_grad()
        if way == "full":
            plain(batch).backward()
        elif way == "cached":
            loss(batch, *cache.encode(image_encoder, text_encoder, alignment, batch)).backward()
        else:
            for start in range(0, batch_size, CHUNK):
                plain(rows(batch, slice(start, start + CHUNK))).backward()

    plain(rows(batch, slice(0, 2))).backward()  # what the first call of everything allocates
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    torch.save({"mib": grown, "gradients": {name: part.grad for name, part in module.named_parameters()}}, file)


def measure(batch_size: int, rounds: int, **environment: str) -> dict[str, dict[str, Any]]:
    """Seconds of each step, MiB and gradients of each way."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        files = {way: str(Path(folder) / way) for way in WAYS}
        running = {
            way: subprocess.Popen(
                [sys.executable, __file__, "--child", way, "--batch", str(batch_size), "--file", file],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
            )
            for way, file in files.items()
        }  # fmt: skip
        found: dict[str, dict[str, Any]] = {way: {"seconds": []} for way in running}
        for _ in range(rounds):
            for way, process in running.items():
                assert process.stdin
                assert process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                found[way]["seconds"].append(float(process.stdout.readline()))
        for way, process in running.items():
            process.communicate()
            found[way] |= torch.load(files[way])
    return found


def difference(found: dict[str, dict[str, Any]], way: str) -> float:
    """Norm of the difference between this way's gradient and the whole batch's, relative to the latter's."""
    import torch

    one, other = (torch.cat([part.flatten() for part in found[of]["gradients"].values()]) for of in ("full", way))
    return float((other - one).norm() / one.norm())


def compared(batch_size: int, rounds: int) -> list[dict[str, Any]]:
    """Prints a line for each way; returns the cache's ratios."""
    timed = measure(batch_size, rounds)
    held = measure(batch_size, 1, MALLOC_MMAP_THRESHOLD_="1048576", MALLOC_TRIM_THRESHOLD_="1048576")
    columns = {
        "time": {way: statistics.median(timed[way]["seconds"][1:]) for way in WAYS},
        "process memory": {way: timed[way]["mib"] for way in WAYS},
        "memory held": {way: held[way]["mib"] for way in WAYS},
    }
    for way in WAYS:
        values = "".join(f"{at[way]:>{WIDTH}.1f}{at[way] / at['full']:>7.2f}" for at in columns.values())
        print(f"{batch_size:>6}{way:>8}{values}{difference(timed, way):>18.0e}")
    ratios = {f"{name} to full": at["cached"] / at["full"] for name, at in columns.items()}
    ratios["time to summed"] = columns["time"]["cached"] / columns["time"]["summed"]
    return [
        {"name": f"{name}, batch {batch_size}", "value": round(value, 3), "goal": None, "met": None}
        for name, value in ratios.items()
    ]


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="5 steps in place of 2, and also a batch of 2,048")
    for option in ("--child", "--batch", "--file"):
        parser.add_argument(option, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, int(given.batch), given.file)
        return
    results = []
    heads = "".join(f"{name:>{WIDTH}}{'ratio':>7}" for name in ("s/step", "MiB", "held"))
    print(f"{'batch':>6}{'way':>8}{heads}{'gradient differs':>18}", flush=True)
    for batch_size in (BATCH, 2 * BATCH) if given.full else (BATCH,):
        results += compared(batch_size, 6 if given.full else 3)
    print(json.dumps({"benchmark": "gradient_cache", "results": results}))


if __name__ == "__main__":
    main()
