"""Images per second and core from JPEG files to ready batches, against open_clip's own pipeline with the same target.

`python benchmarks/input_pipeline.py` writes 640 × 480 JPEGs with photographic statistics (`--photos DIR` takes those of
a folder instead), and alternates open_clip's CsvDataset with its evaluation transform, mmlit from the same files, and
both from shards or files shrunk to a shorter side of 256 px (quality 90, as the photographs), in one process on one
thread; then with 1 and 2 workers. A batch is ready when it is normalized floats; mmlit does that for the whole batch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import open_clip
import torch
from open_clip_train.data import CsvDataset
from PIL import Image
from torch.utils.data import DataLoader

from mmlit.contracts import ImageSpec
from mmlit.data.batching import OneCaption
from mmlit.data.coco import CocoCaptions
from mmlit.data.datamodule import PairsDataModule, Source
from mmlit.data.reading import Reading
from mmlit.data.shards import Shards
from mmlit.text_encoders.tiny import TinyTextEncoder

SIZE, BATCH = 224, 64
MEAN, STD = (
    torch.tensor(values).view(3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
)


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Amplitudes that fall with frequency as photographs' do (about 1/f: Field 1987), shared in part by the colours."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / max(width, height)
    fields = []
    for _ in range(3):
        phases = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        field = np.fft.irfft2(phases / frequency**1.5, s=(height, width))
        fields.append((field - field.mean()) / field.std())
    pixels = 128 + 50 * (fields[0][..., None] + 0.3 * np.stack(fields, axis=-1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photographs(folder: Path, count: int, given: Path | None) -> list[str]:
    """`count` JPEGs below `folder`: made here, or those of `given`, as they are."""
    folder.mkdir()
    if given is not None:
        found = sorted(path for path in given.rglob("*.jp*g"))[:count]
        for number, path in enumerate(found):
            (folder / f"{number:06d}.jpg").write_bytes(path.read_bytes())
        return [f"{number:06d}.jpg" for number in range(len(found))]
    names = [f"{number:06d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        photograph(640, 480, number).save(folder / name, quality=90)
    return names


def write_annotations(root: Path, names: list[str]) -> None:
    """The same captions in COCO's layout for mmlit, as a table for open_clip."""
    captions = [f"a photograph of some thing number {number} on a table beside another" for number in range(len(names))]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    texts = [{"id": number, "image_id": number, "caption": caption} for number, caption in enumerate(captions)]
    (root / "train.json").write_text(json.dumps({"images": images, "annotations": texts}))
    for folder in ("train", "small"):
        rows = [f"{root / folder / name}\t{caption}" for name, caption in zip(names, captions, strict=True)]
        (root / f"{folder}.tsv").write_text("\n".join(["filepath\ttitle", *rows]) + "\n")


def shrink(root: Path, names: list[str]) -> None:
    """Shards of 256 px, written by the project's own command, and the same pictures as files for open_clip."""
    command = [
        sys.executable, "-m", "mmlit.cli", "data", "shards", "--out", str(root / "shards"), "--split", "train",
        "--shorter-side", "256", "--quality", "90", "data=coco2017",
        f"data.root={root}", "data.source.annotations='{split}.json'", "data.source.images='{split}'",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (root / "small").mkdir()
    captions = shards(root).read("train")
    for image, name in enumerate(names):
        (root / "small" / name).write_bytes(captions.picture(image))


def shards(root: Path) -> Source:
    """The shrunk shards."""
    return Shards(root=root / "shards", shards="{split}/*.tar", captions=None, incomplete="raise", window=1_000_000)


def files(root: Path) -> Source:
    """The photographs themselves."""
    return CocoCaptions(root=root, annotations="{split}.json", images="{split}", prepare=None)


def theirs(table: Path, workers: int) -> Iterable[torch.Tensor]:
    """open_clip's batches: pictures are resized, cropped and normalized one by one, captions tokenized on the way."""
    transform = open_clip.image_transform(SIZE, is_train=False)
    data = CsvDataset(str(table), transform, "filepath", "title", tokenizer=open_clip.get_tokenizer("ViT-B-32"))
    return (image for image, _ in DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True))


def ours(root: Path, source: Callable[..., Source], workers: int, decode: str = "fast") -> Iterable[torch.Tensor]:
    """mmlit's batches of the same pixels, normalized as a batch."""
    text = TinyTextEncoder(vocabulary_size=1000, max_length=32, dim=32, num_layers=1, freeze=True)
    data = PairsDataModule(
        root=str(root), source=lambda root: source(Path(root)), train="train", val=1, test="train", batch_size=BATCH,
        num_workers=workers, drop_last=True, seed=0, split=None, text=text, cache=None,
        image=ImageSpec(dim=1, size=SIZE, resize="crop", interpolation="bicubic"),
        batching=OneCaption(group_by_length=False), reading=Reading(decode=decode, on_error="raise", max_bad_share=0.0),
    )  # fmt: skip
    data.setup("fit")
    return (batch.image.float().sub_(255 * MEAN).mul_(1 / (255 * STD)) for batch in data.train_dataloader())


def rate(batches: Iterable[torch.Tensor]) -> float:
    """Images per second of one pass, from when it is asked for; with workers their start counts, too."""
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Prints tables, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, metavar="DIR", help="JPEGs to read instead of made ones")
    parser.add_argument("--count", type=int, default=641, metavar="N", help="photographs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="passes of each (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = write_photographs(root / "train", arguments.count, arguments.photos)
        write_annotations(root, names)
        shrink(root, names)
        ways: dict[str, Callable[[int], Iterable[torch.Tensor]]] = {
            "open_clip, files": lambda workers: theirs(root / "train.tsv", workers),
            "mmlit, files": lambda workers: ours(root, files, workers),
            "mmlit, files, exact": lambda workers: ours(root, files, workers, "exact"),
            "open_clip, shrunk files": lambda workers: theirs(root / "small.tsv", workers),
            "mmlit, shrunk shards": lambda workers: ours(root, shards, workers),
        }
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(arguments.rounds):
            for workers in (0, 1, 2):
                for name, way in ways.items():
                    rates.setdefault((name, workers), []).append(rate(way(workers)))
    report({key: statistics.median(found) for key, found in rates.items()})


def report(rates: dict[tuple[str, int], float]) -> None:
    """A row for each way: images per second in this process, its ratio to open_clip's, and with workers."""
    names = list(dict.fromkeys(name for name, _ in rates))
    peer = rates[names[0], 0]
    print(f"{'':<26}{'images/s, one core':>20}{'ratio':>8}{'1 worker':>10}{'2 workers':>11}")
    for name in names:
        here, one, two = (rates[name, workers] for workers in (0, 1, 2))
        print(f"{name:<26}{here:>20.0f}{here / peer:>8.2f}{one:>10.0f}{two:>11.0f}")
    goals = {"mmlit, files": 2.0, "mmlit, shrunk shards": 4.0}
    results = [
        {"name": f"{name} / open_clip, files", "value": round(value, 2), "goal": f">= {goal}", "met": value >= goal}
        for name, goal in goals.items()
        if (value := rates[name, 0] / peer)
    ]
    fair = rates["mmlit, shrunk shards", 0] / rates["open_clip, shrunk files", 0]
    growth = rates["mmlit, files", 2] / rates["mmlit, files", 1]
    results += [
        {"name": "both from shrunk pictures", "value": round(fair, 2), "goal": None, "met": None},
        {"name": "mmlit, files: 2 workers / 1", "value": round(growth, 2), "goal": None, "met": None},
    ]
    print(json.dumps({"benchmark": "input_pipeline", "results": results}))


if __name__ == "__main__":
    main()
