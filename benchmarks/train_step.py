"""A training step of CLIP ViT-B/32 on the CPU: this project against `open_clip`, with identical weights.

`python benchmarks/train_step.py` builds `image_encoder=clip text_encoder=clip alignment=contrastive` with identity
heads from a directory that it writes (random weights, OpenAI's architecture and vocabulary), copies the weights into
`open_clip`'s model, and lets the two take turns: forward, loss, backward, AdamW, in fp32 with random pixels. At every
step the two losses must agree to 1e-4. This project's side is its `RetrievalModule.training_step` and its configured
optimizer, outside Lightning's loop; `open_clip` gets pixels that are normalized already, and AdamW as its trainer makes
it. A third way is `open_clip` with its text cut to the longest of the batch: by itself where the installed version can,
by hand otherwise. `peak` is the share of the machine's measured matrix-product peak that a way's own FLOPs reach.

`--captions FILE` takes the captions from an annotation file in COCO's layout; else made-up ones have their lengths.
"""

import argparse
import gzip
import json
import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from hydra import compose, initialize_config_dir
from open_clip.loss import ClipLoss
from open_clip.tokenizer import bytes_to_unicode, default_bpe
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmlit.contracts import Batch
from mmlit.run.job import Job
from mmlit.run.parts import build
from mmlit.training.module import RetrievalModule
from mmlit.training.parameter_groups import parameter_groups
from mmlit.training.speed import fused

ROOT = Path(__file__).resolve().parents[1]
BATCHES, THREADS = (16, 32), 2
LR, TOLERANCE = 1e-6, 1e-4
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: words of a caption: mean and standard deviation in COCO's val2017
WORDS = (10.4, 2.3)
SCENE = ("a", "man", "sits", "on", "the", "small", "table", "near", "two", "large", "dogs", "with", "bicycle", "people")


class Way(NamedTuple):
    """A name, and a step that returns its loss."""

    name: str
    step: Callable[[], float]


def captions_of(file: Path | None) -> list[str]:
    """Captions of an annotation file in its order, or made-up ones of like length."""
    if file is not None:
        return [entry["caption"] for entry in json.loads(file.read_text())["annotations"]]
    draw = random.Random(0)
    return [" ".join(draw.choices(SCENE, k=max(4, round(draw.gauss(*WORDS))))) for _ in range(1000)]


def write_clip(folder: Path) -> None:
    """What lies beside the weights of openai/clip-vit-base-patch32; the vocabulary is `open_clip`'s copy of it."""
    from transformers import CLIPConfig

    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    tokens = [*words, "<|startoftext|>", "<|endoftext|>"]
    CLIPConfig(
        text_config={"vocab_size": len(tokens), "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1},
        vision_config={"image_size": 224, "patch_size": 32},
        projection_dim=512,
    ).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "pad_token": tokens[-1], "unk_token": tokens[-1]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **special}))
    sizes = {"size": 224, "crop_size": 224, "resample": 3, "image_mean": MEAN, "image_std": STD}
    steps = {"do_resize": True, "do_center_crop": True, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor", **sizes, **steps})
    )


def own_module(folder: Path) -> RetrievalModule:
    """As `train.py` builds it."""
    write_clip(folder)
    towers = [
        f"{tower}.{option}"
        for tower in ("image_encoder", "text_encoder")
        for option in (f"name={folder}", "weights=null", "projection=true", "freeze=false")
    ]
    chosen = ["image_encoder=clip", "text_encoder=clip", "alignment=contrastive", "alignment.dim=512", "logger=[]"]
    heads = ["alignment.image_head=identity", "alignment.text_head=identity", f"optimizer.lr={LR}"]
    paths = [f"paths.{name}={folder / name}" for name in ("data", "outputs", "cache")]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [*chosen, *towers, *heads, *paths, "trainer.enable_progress_bar=false"])
    torch.manual_seed(0)
    return build(Job(config, {}, [], folder / "run")).module


def peer_of(module: RetrievalModule) -> Any:
    """`open_clip`'s model with the weights of `module`."""
    peer: Any = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None, output_dict=True)
    image, text = module.image_encoder, module.text_encoder
    vision, words = image.tower.state_dict(), text.tower.state_dict()
    weights = {
        "logit_scale": module.alignment.temperature.log_scale.data,
        "visual.class_embedding": vision["embeddings.class_embedding"],
        "visual.positional_embedding": vision["embeddings.position_embedding.weight"],
        "visual.conv1.weight": vision["embeddings.patch_embedding.weight"],
        "visual.proj": image.projection.weight.data.T,
        "token_embedding.weight": words["embeddings.token_embedding.weight"],
        "positional_embedding": words["embeddings.position_embedding.weight"],
        "text_projection": text.projection.weight.data.T,
        **{f"visual.ln_pre.{part}": vision[f"pre_layrnorm.{part}"] for part in ("weight", "bias")},
        **{f"visual.ln_post.{part}": vision[f"post_layernorm.{part}"] for part in ("weight", "bias")},
        **{f"ln_final.{part}": words[f"final_layer_norm.{part}"] for part in ("weight", "bias")},
        **_blocks(vision, "visual.transformer"),
        **_blocks(words, "transformer"),
    }
    peer.load_state_dict({name: value.clone() for name, value in weights.items()})
    return peer.train()


def _blocks(tower: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The layers of a tower in `open_clip`'s layout: one product makes queries, keys and values."""
    names = {
        "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    found = {}
    for number in range(12):
        own, other = f"encoder.layers.{number}", f"{prefix}.resblocks.{number}"
        for part in ("weight", "bias"):
            for name, renamed in names.items():
                found[f"{other}.{renamed}.{part}"] = tower[f"{own}.{name}.{part}"]
            three = [tower[f"{own}.self_attn.{name}_proj.{part}"] for name in "qkv"]
            found[f"{other}.attn.in_proj_{part}"] = torch.cat(three)
    return found


def peer_optimizer(peer: nn.Module) -> torch.optim.Optimizer:
    """As `open_clip`'s own trainer makes it."""
    plain = [weight for name, weight in peer.named_parameters() if weight.ndim < 2 or "logit_scale" in name]
    decayed = [weight for name, weight in peer.named_parameters() if not (weight.ndim < 2 or "logit_scale" in name)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.05}]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))


def encode_cut(peer: Any, ids: Tensor) -> Tensor:
    """`open_clip`'s text tower on fewer than 77 positions, which its own `encode_text` refuses up to version 3.3."""
    length = ids.shape[1]
    states = peer.token_embedding(ids) + peer.positional_embedding[:length]
    states = peer.ln_final(peer.transformer(states, attn_mask=peer.attn_mask[:length, :length]))
    pooled = states[torch.arange(len(ids)), ids.argmax(1)] @ peer.text_projection
    return nn.functional.normalize(pooled, dim=-1)


def takes_short_text(peer: Any, ids: Tensor) -> bool:
    """Whether the installed version has variable-length text."""
    try:
        with torch.no_grad():
            peer.encode_text(ids)
    except RuntimeError:
        return False
    return True


def own_way(module: RetrievalModule, batch: Batch) -> Way:
    """Forward, loss, backward and update as the Trainer would call them."""
    optimizer = fused(module.optimizer_, parameter_groups(module), device=module.device)

    def step() -> float:
        loss = module.training_step(batch, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        module.alignment.after_step(module.pairs)  # type: ignore[arg-type]
        module.pairs = None
        optimizer.zero_grad()
        return loss.item()

    return Way("mmlit", step)


def peer_way(name: str, peer: Any, pixels: Tensor, ids: Tensor, encode_text: Callable[[Tensor], Tensor]) -> Way:
    """The same of `open_clip`, as its trainer does it."""
    optimizer, criterion = peer_optimizer(peer), ClipLoss()

    def step() -> float:
        image, text = peer.encode_image(pixels, normalize=True), encode_text(ids)
        loss = criterion(image, text, peer.logit_scale.exp())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            peer.logit_scale.clamp_(0, 4.6052)
        optimizer.zero_grad()
        return float(loss.detach())

    return Way(name, step)


def ways(folder: Path, captions: Sequence[str]) -> tuple[list[Way], int]:
    """The three ways on one batch, and the length of its longest caption in tokens."""
    module = own_module(folder)
    ids, mask = module.text_encoder.tokenize(captions)
    count, length = ids.shape
    numbers = torch.arange(count)
    pixels = torch.randint(256, (count, 3, 224, 224), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    batch = Batch(pixels, numbers, ids, mask, None, numbers, numbers)
    full = open_clip.get_tokenizer("ViT-B-32-quickgelu")(list(captions))
    if not torch.equal(full[:, :length][mask], ids[mask]):
        raise SystemExit("the two tokenizers disagree")
    ready = (pixels / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    peer, other = peer_of(module), peer_of(module)
    if takes_short_text(other, full[:, :length]):
        cut = peer_way("open_clip, variable length", other, ready, full[:, :length], lambda ids: normal(other, ids))
    else:
        cut = peer_way("open_clip, cut by hand", other, ready, full[:, :length], lambda ids: encode_cut(other, ids))
    padded = peer_way("open_clip", peer, ready, full, lambda ids: normal(peer, ids))
    return [own_way(module, batch), padded, cut], length


def normal(peer: Any, ids: Tensor) -> Tensor:
    """Unit vectors of texts by the model's own way."""
    encoded: Tensor = peer.encode_text(ids, normalize=True)
    return encoded


def matrix_peak() -> float:
    """FLOP/s of the quickest of several large products."""
    one, other = torch.randn(2, 2048, 2048).unbind()
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def measure(captions: Sequence[str], rounds: int) -> list[dict[str, object]]:
    """Prints a line for each way; returns the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        running, length = ways(Path(folder), captions)
        flops: list[int] = []
        losses = []
        for way in running:
            with FlopCounterMode(display=False) as counter:
                losses.append(way.step())
            flops.append(counter.get_total_flops())
        check(running, losses)
        seconds: dict[str, list[float]] = {way.name: [] for way in running}
        peaks = [matrix_peak()]
        for _ in range(rounds):
            losses = []
            for way in running:
                start = time.perf_counter()
                losses.append(way.step())
                seconds[way.name].append(time.perf_counter() - start)
            check(running, losses)
            peaks.append(matrix_peak())
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    count, own, lines = len(captions), middle["mmlit"], []
    for way, work in zip(running, flops, strict=True):
        share = work / middle[way.name] / max(peaks)
        print(
            f"{count:>5}  {way.name:<28}{length if way.name != 'open_clip' else 77:>6}{middle[way.name]:>9.2f}"
            f"{count / middle[way.name]:>11.2f}{middle[way.name] / own:>8.2f}{work / 1e9:>9.0f}{share:>7.0%}"
        )
        if way.name == "mmlit":
            lines.append(_line(f"share of peak, batch {count}", share, None))
        else:
            goal = {"open_clip": 1.8, "open_clip, variable length": 1.05}.get(way.name)
            lines.append(_line(f"speed / {way.name}, batch {count}", middle[way.name] / own, goal))
    return lines


def check(running: Sequence[Way], losses: Sequence[float]) -> None:
    """All ways have learned the same."""
    if max(losses) - min(losses) > TOLERANCE:
        told = ", ".join(f"{way.name} {loss:.6f}" for way, loss in zip(running, losses, strict=True))
        raise SystemExit(f"the losses differ: {told}")


def _line(name: str, value: float, least: float | None) -> dict[str, object]:
    goal, met = (None, None) if least is None else (f">= {least}", value >= least)
    return {"name": name, "value": round(value, 3), "goal": goal, "met": met}


def main() -> None:
    """Prints a table, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--captions", type=Path, help="annotation file in COCO's layout (default: made-up captions)")
    parser.add_argument("--full", action="store_true", help="11 rounds in place of 5")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="batch sizes (default: 16 32)")
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore", message=".*self.trainer.*")  # it is measured outside Lightning's loop
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(THREADS)
    captions, results = captions_of(options.captions), []
    print(f"{'batch':>5}  {'':<28}{'tokens':>6}{'s/step':>9}{'samples/s':>11}{'ratio':>8}{'GFLOP':>9}{'peak':>7}")
    for count in options.batches:
        results += measure(captions[:count], options.rounds or (11 if options.full else 5))
    print(json.dumps({"benchmark": "train_step", "results": results}))


if __name__ == "__main__":
    main()
