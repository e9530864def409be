"""What a comparison on frozen towers costs with and without a store of their outputs.

`python benchmarks/feature_store.py` makes 512 JPEGs of 224 to 640 px with the spectrum of photographs (or takes those
of `--photos DIR`), five captions for each, a MobileNetV2 and a BERT of MiniLM's size, both with random weights. It
measures a pass over all images and captions, the building of the store, epochs of the four alignments with and without
it, and how fast random batches are read. Fifteen epochs of four alignments with three seeds are multiplied out.
"""

import argparse
import itertools
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from PIL import Image
from torch.utils.data import DataLoader

from mmlit.features.build import Build
from mmlit.features.key import Manner
from mmlit.features.layout import Layout
from mmlit.features.store import FeatureStore
from mmlit.features.stores import FeatureStores
from mmlit.run import fit
from mmlit.run.job import job_of
from mmlit.run.parts import Parts, build

ALIGNMENTS = ("joint", "cross_attention", "contrastive", "projection")
EPOCHS, SEEDS = 15, 3
CONF = Path(__file__).resolve().parents[1] / "conf"
WORDS = 30_517  # with five special tokens as many as MiniLM has


def photographs(folder: Path, count: int) -> None:
    """JPEGs whose power falls with the square of the frequency, as that of natural scenes does.

    Source: Field 1987, "Relations between the statistics of natural images and the response properties of cortical
    cells".
    """
    draw, side = np.random.default_rng(0), 896
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    frequency[0, 0] = 1 / side
    scenes = []
    for _ in range(8):
        noise = np.fft.rfft2(draw.standard_normal((3, side, side)))
        light = np.fft.irfft2(noise / frequency, (side, side))
        light = 0.8 * light[:1] + 0.4 * light  # colours go along with brightness
        scenes.append(np.clip(128 + 55 * (light - light.mean()) / light.std(), 0, 255).astype(np.uint8))
    folder.mkdir(parents=True)
    for number in range(count):
        height, width = draw.integers(224, 641, 2)
        top, left = draw.integers(0, side - height + 1), draw.integers(0, side - width + 1)
        part = scenes[number % len(scenes)][:, top : top + height, left : left + width]
        Image.fromarray(np.ascontiguousarray(part.transpose(1, 2, 0))).save(folder / f"{number:06}.jpg", quality=90)


def data_set(root: Path, photos: Path | None, count: int) -> None:
    """The layout of COCO 2017: `count` training images with five captions each, 16 for each other split."""
    if photos is None:
        photographs(photos := root / "made", count + 32)
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if len(files) < count + 32:
        raise ValueError(f"{photos} holds {len(files)} JPEGs, {count + 32} are needed")
    draw = np.random.default_rng(0)
    for folder in ("annotations", "photos"):
        (root / folder).mkdir()
    bounds = {"train": (0, count), "val": (count, count + 16), "test": (count + 16, count + 32)}
    for split, (first, last) in bounds.items():
        images, captions = [], []
        for number in range(first, last):
            (root / "photos" / f"{number}.jpg").symlink_to(files[number].resolve())
            images.append({"id": number, "file_name": f"photos/{number}.jpg"})
            for each in range(5):
                words = " ".join(f"w{word}" for word in draw.integers(0, WORDS, draw.integers(7, 15)))
                captions.append({"id": 5 * number + each, "image_id": number, "caption": words})
        content = json.dumps({"images": images, "annotations": captions})
        (root / "annotations" / f"captions_{split}2017.json").write_text(content)


def text_tower(folder: Path) -> None:
    """A BERT of MiniLM-L6's size with random weights, and its tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(WORDS))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = BertConfig(
        vocab_size=WORDS + 5, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)


def prepared(root: Path, *options: str) -> Parts:
    """A run of the Flickr8k experiment's frozen towers on this data, its data read."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "config",
            [
                "experiment=flickr8k", "data=coco2017", f"data.root={root}", "data.source.images=.", "data.train=train",
                "data.val=val", "split=test", "data.test=test", "data.batch_size=64", "data.num_workers=1",
                "image_encoder.weights=null", f"text_encoder.name={root}/bert", "callbacks=[last]", "logger=[]",
                "trainer.enable_progress_bar=false", "+trainer.limit_val_batches=0", f"paths.outputs={root}/outputs",
                "trainer.deterministic=false", f"paths.cache={root}/cache", *options,
            ],
            return_hydra_config=True,
        )  # fmt: skip
    job = job_of(config)
    job.directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # the same random towers in every run
    parts = build(job)
    fit._read(job, parts)
    return parts


class Epochs(Callback):
    """Seconds of each epoch of training."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def epoch_seconds(root: Path, alignment: str, epochs: int, *options: str) -> float:
    """The median over the epochs; a first one that starts processes is left out where there are others."""
    parts = prepared(
        root, f"alignment={alignment}", f"trainer.max_epochs={epochs}", "trainer.check_val_every_n_epoch=1", *options
    )
    parts.trainer.callbacks.append(clock := Epochs())
    parts.trainer.fit(parts.module, datamodule=parts.data)
    return statistics.median(clock.seconds[1:] or clock.seconds)


def seconds_of(work: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@torch.inference_mode()
def plain_pass(parts: Parts) -> None:
    """Every image and every caption of the training split through its tower once; nothing is kept."""
    reader, module = parts.data.readers["train"], parts.module
    images: Any = range(reader.captions.num_images)
    for pixels in DataLoader(images, batch_size=16, collate_fn=reader.pixels, num_workers=parts.data.num_workers):
        module.image_encoder(pixels)
    for start in range(0, reader.captions.num_texts, 64):
        stop = min(start + 64, reader.captions.num_texts)
        module.text_encoder(*reader.tokens.take(range(start, stop)))


def built(parts: Parts, folder: Path) -> None:
    """Stores of the same, tokens included."""
    towers: Any = {"image_encoder": parts.module.image_encoder, "text_encoder": parts.module.text_encoder}
    manner = Manner(torch.device("cpu"), "32-true", nullcontext, parts.data.num_workers)
    reader = parts.data.readers["train"]
    FeatureStores(folder=str(folder), half=False).fill({"train": reader}, towers, tokens=True, manner=manner)
    reader.image_store = reader.text_store = None


def building(root: Path, rounds: int) -> tuple[float, float]:
    """Medians of seconds: a plain pass, and building the stores."""
    parts = prepared(root, "features=none")
    passes: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        passes[0].append(seconds_of(lambda: plain_pass(parts)))
        passes[1].append(seconds_of(lambda number=number: built(parts, root / f"built{number}")))
    return statistics.median(passes[0]), statistics.median(passes[1])


def reading(folder: Path, items: int, each: int, width: int) -> Iterator[tuple[str, float]]:
    """GB/s of random batches of 64: the store, numpy's indexing of its file, a copy of as many bytes in a row."""
    layout = Layout(items=items, rows=items * each, width=width, pooled="float32", tokens="float32", chunk=128)
    build_ = Build(folder, layout=layout, facts={"half": False}, about={})
    draw = np.random.default_rng(0)
    with build_.joined():
        for claim in build_.claims():
            count = len(layout.items_of(claim.number))
            arrays = {"pooled": np.zeros((count, width), "f4"), "tokens": draw.random((count * each, width), "f4")}
            start = claim.number * 128 * width * 4
            build_.finish(claim, arrays, {"pooled": start, "tokens": start * each}, [])
        build_.completed()
    store = FeatureStore(folder, first=np.arange(items + 1) * each)
    mapped = np.memmap(folder / "tokens", "f4", "r", shape=(items, each, width))
    batches = [part.tolist() for part in np.split(draw.permutation(items)[: items // 64 * 64], items // 64)]
    size = len(batches) * 64 * each * width * 4
    ways: dict[str, Callable[[list[int]], object]] = {
        "store": store.take,
        "numpy": lambda batch: mapped[batch],
        "copy": lambda batch: np.array(mapped[batch[0] // 64 * 64 : batch[0] // 64 * 64 + 64]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(5), ways.items()):
        seconds[name].append(seconds_of(lambda way=way: [way(batch) for batch in batches]))
    for name, times in seconds.items():
        yield name, size / statistics.median(times) / 1e9


def main() -> None:
    """Prints tables, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of JPEGs (default: made)")
    parser.add_argument("--images", type=int, default=512, help="training images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of passes and builds (default: %(default)s)")
    chosen = parser.parse_args()
    logging.getLogger("mmlit").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data_set(root, chosen.photos, chosen.images)
        text_tower(root / "bert")
        plain, build_seconds = building(root, chosen.rounds)
        print(f"one pass {plain:.1f} s, building {build_seconds:.1f} s: {build_seconds / plain:.2f} times")
        epochs = {"without": 0.0, "with": 0.0}
        print(f"{'seconds an epoch':<20}{'without':>9}{'with':>9}{'ratio':>8}")
        for alignment in ALIGNMENTS:
            without = epoch_seconds(root, alignment, 1, "features=none")
            stored = epoch_seconds(root, alignment, 4)
            epochs = {"without": epochs["without"] + without, "with": epochs["with"] + stored}
            print(f"{alignment:<20}{without:>9.2f}{stored:>9.2f}{without / stored:>8.1f}", flush=True)
        runs = SEEDS * EPOCHS
        totals = {"without": runs * epochs["without"], "with": build_seconds + runs * epochs["with"]}
        ratio = totals["without"] / totals["with"]
        print(f"{EPOCHS} epochs of {SEEDS * len(ALIGNMENTS)} runs, multiplied out from these: ", end="")
        print(f"{totals['without']:.0f} s without, {totals['with']:.0f} s with, building included: {ratio:.1f} times")
        rates = dict(reading(root / "features" / "made", 8000, 9, 1280))
        told = ", ".join(f"{name} {rate:.1f} GB/s" for name, rate in rates.items())
        print(f"random batches of 64 images' tokens: {told}")
    results = [
        {"name": "time without / with", "value": round(ratio, 1), "goal": 10, "met": ratio >= 10},
        {
            "name": "building / one pass",
            "value": round(build_seconds / plain, 2),
            "goal": 1.2,
            "met": build_seconds <= 1.2 * plain,
        },
        {"name": "reading / numpy", "value": round(rates["store"] / rates["numpy"], 2), "goal": None, "met": None},
        {
            "name": "reading / copy in a row",
            "value": round(rates["store"] / rates["copy"], 2),
            "goal": None,
            "met": None,
        },
    ]
    print(json.dumps({"benchmark": "feature_store", "results": results}))


if __name__ == "__main__":
    main()
