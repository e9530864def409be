"""Archives on the test's own server as a data set's, and their download."""

import io
import random
from pathlib import Path

from data.broken_server import Server, published, zipped
from rich.console import Console

from mmlit.data.download.archives import Archive
from mmlit.data.download.download import download
from mmlit.data.download.fetch import Patience
from mmlit.data.download.plan import STATE

PICTURES = {f"train2014/{n:012d}.jpg": random.Random(n).randbytes(20_000) for n in range(30)}
JSON = {"dataset_coco.json": b"[1, 2]" * 999, "dataset_flickr8k.json": b"[]"}
FILES = {"train2014.zip": zipped(PICTURES), "caption_datasets.zip": zipped(JSON, stored=False)}
HOLDS = {"train2014.zip": ("train2014",), "caption_datasets.zip": ("dataset_coco.json",)}
EXPECTED = {**PICTURES, "dataset_coco.json": JSON["dataset_coco.json"]}


def table(server: Server) -> tuple[Archive, ...]:
    return tuple(published(server.url(name), content, HOLDS[name]) for name, content in FILES.items())


def fetched(archives: tuple[Archive, ...], root: Path, *, keep: bool = False, attempts: int = 3) -> str:
    """Downloads; returns what was told."""
    said = io.StringIO()
    patience = Patience(attempts=attempts, pause=0.001, timeout=5)
    download(archives, root=root, keep_archives=keep, console=Console(file=said), patience=patience)
    return said.getvalue()


def content(root: Path) -> dict[str, bytes]:
    """All files below a folder but the downloader's own."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if STATE not in path.parts}
