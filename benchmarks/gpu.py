"""Training steps of CLIP ViT-B/32 and B/16 on a GPU: this project against `open_clip`; without a GPU, a small version.

`python benchmarks/gpu.py` takes random weights, random pixels that lie on the device, and captions of COCO's lengths;
forward, InfoNCE, backward and AdamW as each side's trainer makes them, under autocast to bf16. `mmlit compiled` has
both towers compiled (callbacks=[last,compile]). Each measurement has a process of its own, in which the first steps
are not counted; ways alternate, and medians count. `FLOP` are the matrix products of a way's own step, forward and
backward (open_clip always computes 77 tokens); utilization is what of the measured peak of matrix products they reach
in that time. Without a GPU it takes B/32 in fp32 with a batch of 8 and three steps on the CPU, and says so: that the
benchmark works is all it shows then. Whether losses and gradients agree is what `train_step.py` and the tests look at.
"""

import argparse
import json
import logging
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

DIM, SIZE = 512, 224
WAYS = ("mmlit", "mmlit compiled", "open_clip")
PEERS = {"B/32": "ViT-B-32-quickgelu", "B/16": "ViT-B-16-quickgelu"}


class Plan(NamedTuple):
    """What is measured: on which device, a batch, how many steps in each process, and how many processes."""

    device: str
    batch: int
    warm: int
    steps: int
    rounds: int


SMALL, GPU = Plan("cpu", 8, 1, 3, 1), Plan("cuda", 256, 10, 30, 3)


class Measured(NamedTuple):
    """Seconds of a step, MiB at the peak (on a CPU: beyond the process without towers), FLOP, peak FLOP/s."""

    seconds: float
    mib: float
    flops: int
    peak: float


def own_step(model: str, plan: Plan, *, compiled: bool) -> Callable[[], None]:
    """One step of this project's towers and loss."""
    from train_step import captions_of, write_clip

    from mmlit.alignments.contrastive import Contrastive
    from mmlit.contracts import Batch, Pairs
    from mmlit.image_encoders.huggingface import HuggingFaceImageEncoder
    from mmlit.text_encoders.pair import PairTextEncoder
    from mmlit.training.gathering import global_mean
    from mmlit.training.parameter_groups import parameter_groups
    from mmlit.training.speed import channels_last, fused

    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder))
        file = Path(folder) / "config.json"
        config = json.loads(file.read_text())
        config["vision_config"]["patch_size"] = int(model.partition("/")[2])
        file.write_text(json.dumps(config))
        given = {"name": folder, "weights": None, "projection": True, "freeze": False}
        image_encoder, text_encoder = HuggingFaceImageEncoder(**given), PairTextEncoder(**given, max_length=77)
    alignment = Contrastive(
        image=image_encoder.spec, text=text_encoder.spec, dim=DIM, image_head="identity", text_head="identity",
        dropout=0.0, temperature=0.07, learn_temperature=True, label_smoothing=0.0, hardness=0.0, decoupled=False,
    )  # fmt: skip
    device = torch.device(plan.device)
    module = torch.nn.ModuleList([image_encoder, text_encoder, alignment]).to(device)
    if device.type == "cuda":
        channels_last(image_encoder)
    optimizer = fused(partial(torch.optim.AdamW, lr=1e-5), parameter_groups(module), device=device)
    if compiled:
        image_encoder.compile()
        text_encoder.compile()
    words, mask = (part.to(device) for part in text_encoder.tokenize(captions_of(None)[: plan.batch]))
    ids = torch.arange(plan.batch, device=device)
    batch = Batch(pixels(plan), ids, words, mask, None, ids, ids)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(plan):
            image = alignment.embed_image(image_encoder(batch.image))
            text = alignment.embed_text(text_encoder(batch.token_ids, batch.token_mask))
            pairs = Pairs(image, text, image, text, 0, 0, ids, ids, ids, batch)
            loss = torch.stack([mean.float() for mean in global_mean(alignment.losses(pairs)).values()]).sum()
        loss.backward()
        optimizer.step()
        alignment.after_step(pairs)

    return step


def peer_step(model: str, plan: Plan) -> Callable[[], None]:
    """One step as `open_clip`'s trainer does it."""
    import open_clip
    from train_step import captions_of, peer_optimizer

    peer = open_clip.create_model(PEERS[model], pretrained=None, output_dict=True).to(plan.device).train()
    words = open_clip.get_tokenizer(PEERS[model])(captions_of(None)[: plan.batch]).to(plan.device)
    ready = (pixels(plan) / 127.5 - 1).contiguous()
    optimizer, criterion = peer_optimizer(peer), open_clip.ClipLoss()

    def step() -> None:
        optimizer.zero_grad()
        with autocast(plan):
            found = peer(ready, words)
            loss = criterion(found["image_features"], found["text_features"], found["logit_scale"])
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            peer.logit_scale.clamp_(0, 4.6052)

    return step


def pixels(plan: Plan) -> torch.Tensor:
    """A batch of noise in 0…255 on the device."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (plan.batch, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8).to(plan.device)


def autocast(plan: Plan) -> torch.autocast:
    """bf16 on a GPU; nothing on a CPU."""
    return torch.autocast(plan.device, dtype=torch.bfloat16, enabled=plan.device == "cuda")


def peak_flops(plan: Plan) -> float:
    """FLOP/s of the quickest of several large products, in the precision of the steps."""
    on_gpu = plan.device == "cuda"
    size, dtype = (8192, torch.bfloat16) if on_gpu else (1024, torch.float32)
    one, other = torch.randn(2, size, size, device=plan.device, dtype=dtype).unbind()
    seconds = [timed(lambda: one @ other, plan) for _ in range(20)]
    return 2 * size**3 / min(seconds)


def timed(call: Callable[[], object], plan: Plan) -> float:
    """Seconds, until the device has done all of it."""
    synchronize = torch.cuda.synchronize if plan.device == "cuda" else (lambda: None)
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def measure(model: str, way: str, plan: Plan, answer: Connection) -> None:
    """In a process of its own."""
    from torch.utils.flop_counter import FlopCounterMode

    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    peak = peak_flops(plan)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    step = peer_step(model, plan) if way == "open_clip" else own_step(model, plan, compiled="compiled" in way)
    for _ in range(plan.warm):
        step()
    if plan.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(timed(step, plan) for _ in range(plan.steps))
    on_gpu = plan.device == "cuda"
    mib = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _peak_of_process() - before
    flops = 0
    if "compiled" not in way:  # whose products are not seen one by one
        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
    answer.send(Measured(seconds, mib, flops, peak))


def _peak_of_process() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def apart(model: str, way: str, plan: Plan) -> Measured:
    """`measure` in a new process."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=measure, args=(model, way, plan, theirs))
    process.start()
    theirs.close()
    found: Measured = mine.recv()
    process.join()
    return found


def compared(model: str, ways: tuple[str, ...], plan: Plan) -> list[dict[str, object]]:
    """Prints a line for each way; returns what goes into the JSON."""
    found: dict[str, list[Measured]] = {way: [] for way in ways}
    for _ in range(plan.rounds):
        for way in ways:
            found[way].append(apart(model, way, plan))
    peak = max(one.peak for several in found.values() for one in several)
    flops = {way: several[0].flops or found["mmlit"][0].flops for way, several in found.items()}
    seconds = {way: statistics.median(one.seconds for one in several) for way, several in found.items()}
    mib = {way: statistics.median(one.mib for one in several) for way, several in found.items()}
    results: list[dict[str, object]] = []
    for way in ways:
        rate, share = plan.batch / seconds[way], flops[way] / seconds[way] / peak
        ratio = seconds["open_clip"] / seconds[way]
        print(
            f"{model:>6}  {way:<15}{plan.batch:>6}{1000 * seconds[way]:>10.1f}{rate:>11.1f}{ratio:>7.2f}"
            f"{flops[way] / 1e9:>10.0f}{share:>13.0%}{mib[way]:>9.0f}"
        )
        values = {"samples/s": rate, "utilization": share, "MiB": mib[way]}
        if way != "open_clip":
            values["speed / open_clip"] = ratio
        results += [
            {"name": f"{name}, {way}, {model}, {plan.device}", "value": round(value, 3), "goal": None, "met": None}
            for name, value in values.items()
        ]
    return results


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, help="samples of a step (default: 256 on a GPU, 8 on a CPU)")
    parser.add_argument("--full", action="store_true", help="on a CPU B/16 and compiled towers, too")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    plan = GPU if torch.cuda.is_available() else SMALL
    plan = plan._replace(batch=given.batch or plan.batch)
    whole = given.full or plan.device == "cuda"
    if plan.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, autocast to bf16")
    else:
        print("no GPU: the small version on the CPU, in fp32. Its numbers say nothing of a GPU; those are outstanding.")
    print(
        f"{'model':>6}  {'':<15}{'batch':>6}{'ms/step':>10}{'samples/s':>11}{'ratio':>7}{'GFLOP':>10}"
        f"{'utilization':>13}{'MiB':>9}"
    )
    results = []
    for model in PEERS if whole else ("B/32",):
        results += compared(model, WAYS if whole else ("mmlit", "open_clip"), plan)
    print(json.dumps({"benchmark": "gpu", "device": plan.device, "results": results}))


if __name__ == "__main__":
    main()
