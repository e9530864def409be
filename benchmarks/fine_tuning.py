"""What a step of fine-tuning costs on a CPU: batch norms that stand still, and captions of many lengths.

`python benchmarks/fine_tuning.py` takes torchvision's MobileNetV2 and ResNet-50 at 224 px, forward and backward, with
`towers=[frozen_batch_norm]` and beside it with their batch norms in evaluation mode, as is usual (the batch norm is
then an operation of its own); and a BERT of MiniLM's size over the captions of 128 images, five each, by its encoder
here and beside it by transformers on the same padded batch; last, the first of these steps with 128 images, in
processes of their own that keep freed memory, as training does, or give it back, as is usual. Random weights, captions
as long as COCO's. The two ways alternate; medians count. `--rounds` measures more.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmlit.contracts import ImageEncoder
from mmlit.image_encoders.torchvision import TorchvisionEncoder
from mmlit.text_encoders.huggingface import HuggingFaceTextEncoder
from mmlit.training.depth import layers_of
from mmlit.training.frozen_batch_norm import FrozenBatchNorm
from mmlit.training.speed import keep_freed_memory

#: name, images in a batch, trained layers at the end
TOWERS = (("mobilenet_v2", 64, 9), ("mobilenet_v2", 64, 19), ("resnet50", 16, 4), ("resnet50", 16, 17))
WIDTH = 26
#: captions of COCO by their number of word pieces, marks included, in hundredths; the rest is longer
LENGTHS = {11: 12, 12: 25, 13: 22, 14: 15, 15: 10, 16: 6, 18: 5, 21: 3, 26: 1, 38: 1}


def alternate(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def tell(what: str, count: int, found: dict[str, float]) -> None:
    """Items a second, and how much faster ours is."""
    ours, other = found["mmlit"], found["plain"]
    print(f"{what:<{WIDTH}} plain {count / other:7.1f}/s   mmlit {count / ours:7.1f}/s   ratio {other / ours:.2f}")


def tower(name: str, last: int) -> dict[str, ImageEncoder]:
    """Twins with norms that stand still: of which convolutions do the work, and beside them."""
    torch.manual_seed(0)
    plain = TorchvisionEncoder(
        name=name, weights=None, size=224, resize="squash", resize_to=None, interpolation="bilinear",
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), padding="symmetric", grid=None, freeze=False,
    )  # fmt: skip
    plain.needs_tokens = False
    kept = {name for layer in layers_of(plain)[-last:] for name in layer}
    for key, parameter in plain.named_parameters():
        parameter.requires_grad_(key in kept)
    ours = deepcopy(plain)
    FrozenBatchNorm().apply(ours, None)  # type: ignore[arg-type]
    plain.still = tuple(part for part in plain.modules() if isinstance(part, nn.BatchNorm2d))
    return {"plain": plain.train(), "mmlit": ours.train()}


def text_tower(folder: Path) -> HuggingFaceTextEncoder:
    """A BERT of MiniLM's size, from a directory as one is published."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(3000))]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    BertModel(
        BertConfig(vocab_size=len(words), hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                   intermediate_size=1536)
    ).save_pretrained(folder)  # fmt: skip
    return HuggingFaceTextEncoder(name=str(folder), weights="pretrained", pooling="mean", max_length=64, freeze=False)


def texts(rounds: int) -> None:
    """Captions of a batch of 128 images."""
    torch.manual_seed(0)
    lengths = [length for length, share in LENGTHS.items() for _ in range(share)]
    drawn = [lengths[at] for at in torch.randint(len(lengths), (640,)).tolist()]
    with tempfile.TemporaryDirectory() as folder:
        encoder = text_tower(Path(folder))
    ids, mask = encoder.tokenize([" ".join(f"w{place}" for place in range(length - 2)) for length in drawn])
    encoder.needs_tokens = False

    def plain() -> Tensor:
        tokens = encoder.tower(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weight = mask[..., None].float()
        return (tokens * weight).sum(1) / weight.sum(1)

    encoder.eval()
    with torch.no_grad():
        assert torch.allclose(plain(), encoder(ids, mask).pooled, rtol=1e-3, atol=1e-4)
    encoder.train()
    found = alternate(
        {"plain": lambda: plain().sum().backward(), "mmlit": lambda: encoder(ids, mask).pooled.sum().backward()}, rounds
    )
    tell(f"640 captions, {mask.shape[1]} wide", 640, found)


def _in_own_process(keep: bool, rounds: int, told: Any) -> None:
    if keep:
        keep_freed_memory()
    pixels = torch.randint(256, (128, 3, 224, 224)).byte()
    told.put(alternate({"step": _step(tower("mobilenet_v2", 9)["mmlit"], pixels)}, rounds)["step"])


def memory(rounds: int) -> None:
    """Of allocations: a process has one way of making them."""
    context = get_context("spawn")
    seconds: dict[str, list[float]] = {"plain": [], "mmlit": []}
    for _ in range(2):
        for way, found in seconds.items():
            told = context.SimpleQueue()
            process = context.Process(target=_in_own_process, args=(way == "mmlit", rounds, told))
            process.start()
            found.append(told.get())
            process.join()
    tell("freed memory is kept", 128, {way: statistics.median(found) for way, found in seconds.items()})


def main() -> None:
    """Prints a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    for name, batch, last in TOWERS:
        pixels = torch.randint(256, (batch, 3, 224, 224)).byte()
        ways = {way: _step(encoder, pixels) for way, encoder in tower(name, last).items()}
        tell(f"{name}, last {last} train", batch, alternate(ways, rounds))
    texts(rounds)
    memory(rounds)


def _step(encoder: ImageEncoder, pixels: Tensor) -> Callable[[], None]:
    return lambda: encoder(pixels).pooled.mean().backward()


if __name__ == "__main__":
    main()
