"""What the gradient cache saves and costs: a step of 1,024 pairs as a whole and in chunks of 64.

`python benchmarks/gradient_cache.py` takes the towers of CLIP at a width and depth that two cores train in minutes
(a ViT of four layers, width 256, 16 × 16 patches of 112 px; a text transformer alike, 32 tokens), random pictures and
captions, and runs forward, InfoNCE and backward. Each way has a process of its own, whose peak memory counts from what
it holds before the first step; the two alternate. `--full` measures more steps, and a batch of 2,048.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, CHUNK, SIZE, DIM, LAYERS, WORDS = 1024, 64, 112, 256, 4, 32


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
            raise NotImplementedError

        def forward(self, ids: Any, mask: Any) -> Encoded:
            found = self.tower(input_ids=ids, attention_mask=mask)
            return Encoded(found.last_hidden_state, found.pooler_output, mask)

    torch.manual_seed(0)
    image, text = Images(), Texts()
    alignment = Contrastive(
        image=image.spec, text=text.spec, dim=DIM, image_head="linear", text_head="linear", dropout=0.0,
        temperature=0.07, learn_temperature=True,
    )  # fmt: skip
    return torch.nn.ModuleList([image, text, alignment])


def child(way: str, batch_size: int, file: str) -> None:
    """One way in this process: a step for each line that comes in, its seconds out; at the end memory and gradients."""
    import torch

    from mmlit.contracts import Batch, Pairs
    from mmlit.training.gathering import global_mean
    from mmlit.training.gradient_cache import GradientCache

    module = towers()
    image_encoder, text_encoder, alignment = module
    generator = torch.Generator().manual_seed(1)
    ids = torch.arange(batch_size)
    pixels = torch.randint(256, (batch_size, 3, SIZE, SIZE), generator=generator).byte()
    words = torch.randint(1, 999, (batch_size, WORDS), generator=generator)
    words[:, -1] = 999
    batch = Batch(pixels, ids, words, torch.ones_like(words).bool(), None, ids, ids)
    cache = GradientCache(chunk_size=CHUNK)

    def step() -> None:
        if way == "full":
            image, text = image_encoder(pixels), text_encoder(words, batch.token_mask)
            image, text = alignment.embed_image(image), alignment.embed_text(text)
        else:
            image, text = cache.encode(image_encoder, text_encoder, alignment, batch)
        pairs = Pairs(
            image, text, image, text, 0, 0, ids, ids, ids, batch=batch, encode_image=cache.refuse(alignment),
            encode_text=cache.refuse(alignment),
        )  # fmt: skip
        module.zero_grad()
        sum(global_mean(alignment.losses(pairs)).values()).backward()

    small = batch._replace(image=pixels[:2], token_ids=words[:2], token_mask=batch.token_mask[:2])
    with torch.no_grad():  # what the first call of everything allocates
        cache.encode(image_encoder, text_encoder, alignment, small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    torch.save({"mib": grown, "gradients": {name: part.grad for name, part in module.named_parameters()}}, file)


def measure(batch_size: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of each step and MiB of both ways, and by how much their gradients differ, relative."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        files = {way: str(Path(folder) / way) for way in ("full", "cached")}
        running = {
            way: subprocess.Popen(
                [sys.executable, __file__, "--child", way, "--batch", str(batch_size), "--file", file],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for way, file in files.items()
        }  # fmt: skip
        found: dict[str, dict[str, Any]] = {way: {"seconds": []} for way in running}
        for _ in range(rounds + 1):
            for way, process in running.items():
                assert process.stdin
                assert process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                found[way]["seconds"].append(float(process.stdout.readline()))
        for way, process in running.items():
            process.communicate()
            found[way] |= torch.load(files[way])
    one, other = (found[way].pop("gradients") for way in ("full", "cached"))
    whole, chunked = (torch.cat([part.flatten() for part in parts.values()]) for parts in (one, other))
    found["cached"]["difference"] = float((chunked - whole).norm() / whole.norm())
    return found


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
    print(f"{'batch':>6}{'way':>9}{'s/step':>9}{'MiB':>8}{'time':>7}{'memory':>8}{'gradients differ':>18}")
    for batch_size in (BATCH, 2 * BATCH) if given.full else (BATCH,):
        found = measure(batch_size, 5 if given.full else 2)
        seconds = {way: statistics.median(facts["seconds"][1:]) for way, facts in found.items()}
        ratios = seconds["cached"] / seconds["full"], found["cached"]["mib"] / found["full"]["mib"]
        print(f"{batch_size:>6}{'full':>9}{seconds['full']:>9.1f}{found['full']['mib']:>8.0f}{1:>7.2f}{1:>8.3f}")
        print(
            f"{batch_size:>6}{'cached':>9}{seconds['cached']:>9.1f}{found['cached']['mib']:>8.0f}{ratios[0]:>7.2f}"
            f"{ratios[1]:>8.3f}{found['cached']['difference']:>18.1e}"
        )
        for name, value in zip(("time", "memory"), ratios, strict=True):
            results.append({"name": f"{name}, batch {batch_size}", "value": round(value, 3), "goal": None, "met": None})
    print(json.dumps({"benchmark": "gradient_cache", "results": results}))


if __name__ == "__main__":
    main()
