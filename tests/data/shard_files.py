"""Shards for tests, written by webdataset."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from webdataset.writer import ShardWriter, TarWriter


def jpeg(number: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A JPEG of noise that `number` decides."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def as_bytes(value: Any) -> bytes:
    """Bytes as they are, text in UTF-8, all else as JSON."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def write_shard(path: Path, samples: dict[str, dict[str, Any]]) -> Path:
    """A tar with the files {key: {ending: content}}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, TarWriter(file) as tar:
        for key, files in samples.items():
            tar.write({"__key__": key, **{ending: as_bytes(value) for ending, value in files.items()}})
    return path


def sample(number: int, *texts: str, **facts: Any) -> dict[str, Any]:
    """A picture, its first caption, and a JSON with all."""
    texts = texts or (f"caption {number}",)
    return {"jpg": jpeg(number), "txt": texts[0], "json": {"caption": [*texts], **facts}}


def write_img2dataset(folder: Path, *, size: int, per_shard: int) -> None:
    """Pictures as img2dataset leaves them: numbered tars, statistics and a table beside each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    with ShardWriter(f"{folder}/%05d.tar", maxcount=per_shard, verbose=0) as writer:
        for number in range(size):
            facts = {
                "caption": f"caption {number}", "url": f"http://a/{number}.jpg", "key": f"{number:09d}",
                "status": "success", "error_message": None, "width": 12, "height": 10, "exif": "{}", "sha256": "0",
            }  # fmt: skip
            files = {"jpg": jpeg(number), "txt": facts["caption"].encode(), "json": json.dumps(facts).encode()}
            writer.write({"__key__": facts["key"], **files})
    for path in sorted(folder.glob("*.tar")):
        stats = {"count": per_shard + 1, "successes": per_shard, "failed_to_download": 1, "failed_to_resize": 0}
        path.with_name(f"{path.stem}_stats.json").write_text(json.dumps(stats))
        pq.write_table(pa.table({"status": ["success", "failed_to_download"]}), path.with_suffix(".parquet"))
