"""What annotations and tokenizers gave is kept, never taken for what something else gives."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from data.real_files import picture

from mmlit.data.captions import Captions
from mmlit.data.coco import CocoCaptions
from mmlit.data.kept import kept, made_once
from mmlit.data.token_table import token_table
from mmlit.text_encoders.tiny import TinyTextEncoder


def encoder(**changes) -> TinyTextEncoder:
    options = {"vocabulary_size": 100, "max_length": 4, "dim": 32, "num_layers": 1, "freeze": False}
    return TinyTextEncoder(**options | changes)


@pytest.fixture
def source(tmp_path) -> CocoCaptions:
    """Three images with 2, 1 and 3 captions."""
    write(tmp_path, ["a", "b b", "c d e f g", "ü", "e", "f"])
    return CocoCaptions(root=tmp_path, annotations="{split}.json", images="images", prepare=None)


def write(root: Path, texts: list[str]) -> None:
    for image in (1, 2, 3):
        picture(root / "images" / f"{image}.jpg", image)
    images = [{"id": id_, "file_name": f"{id_}.jpg"} for id_ in (1, 2, 3)]
    rows = [{"id": n, "image_id": (1, 1, 2, 3, 3, 3)[n], "caption": text} for n, text in enumerate(texts)]
    (root / "train.json").write_text(json.dumps({"images": images, "annotations": rows}))


def through(source: CocoCaptions, folder: Path, *, settings: str = "", reads: list | None = None) -> Captions:
    def read() -> Captions:
        if reads is not None:
            reads.append(1)
        return source.read("train")

    return kept(read, folder=folder, inputs=source.inputs("train"), settings=settings)


def test_what_was_kept_is_what_was_read(source, tmp_path):
    reads: list[int] = []
    first, again = (through(source, tmp_path / "cache", reads=reads) for _ in range(2))
    plain = source.read("train")
    assert len(reads) == 1
    for captions in (first, again):
        for name in ("files", "texts", "places"):
            assert getattr(captions, name).to_pylist() == getattr(plain, name).to_pylist()
        for name in ("image_id", "text_id", "first"):
            assert getattr(captions, name).tolist() == getattr(plain, name).tolist()
        assert (captions.root, captions.source, captions.digest) == (plain.root, plain.source, plain.digest)
        assert captions.subset(np.array([2, 0])).texts.to_pylist() == ["ü", "e", "f", "a", "b b"]


def test_other_content_or_settings_are_read_anew(source, tmp_path):
    reads: list[int] = []
    through(source, tmp_path / "cache", reads=reads)
    through(source, tmp_path / "cache", reads=reads, settings="other")
    write(tmp_path, ["a", "b b", "c d e f g", "ü", "e", "x"])
    assert through(source, tmp_path / "cache", reads=reads).texts.to_pylist()[-1] == "x"
    assert len(reads) == 3


def test_what_is_half_written_is_never_taken(tmp_path):
    def fail(beside: Path) -> None:
        (beside / "half").write_text("x")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        made_once(tmp_path / "place", fail)
    assert not [*tmp_path.iterdir()]
    made_once(tmp_path / "place", lambda beside: (beside / "whole").write_text("y"))
    made_once(tmp_path / "place", fail)
    assert [path.name for path in tmp_path.rglob("*")] == ["place", "whole"]


def test_tokens_are_kept_with_how_many_texts_lost_their_end(source, tmp_path):
    plain = token_table(source.read("train"), encoder(), folder=None)
    for _ in range(2):
        told = encoder()
        table = token_table(through(source, tmp_path / "cache"), told, folder=tmp_path / "cache")
        assert table.ids.tolist() == plain.ids.tolist()
        assert table.first.tolist() == plain.first.tolist()
        assert table.num_truncated == plain.num_truncated == 1
        ids, mask = table.take([2, 0])
        assert ids.shape == mask.shape == (2, 4)
    assert len([*(tmp_path / "cache" / "tokens").iterdir()]) == 1


@pytest.mark.parametrize("changes", [{"vocabulary_size": 101}, {"max_length": 3}])
def test_another_tokenizer_has_a_table_of_its_own(source, tmp_path, changes):
    captions = source.read("train")
    token_table(captions, encoder(), folder=tmp_path)
    assert token_table(captions, encoder(**changes), folder=tmp_path).ids.tolist() == (
        token_table(captions, encoder(**changes), folder=None).ids.tolist()
    )


def test_a_tokenizer_whose_code_was_changed_is_noticed(source, tmp_path, monkeypatch):
    captions = source.read("train")
    before = token_table(captions, encoder(), folder=tmp_path)
    tokenize = TinyTextEncoder.tokenize
    monkeypatch.setattr(TinyTextEncoder, "tokenize", lambda self, texts: tokenize(self, [text[::-1] for text in texts]))
    assert token_table(captions, encoder(), folder=tmp_path).ids.tolist() != before.ids.tolist()


def private() -> int:
    """KiB of this process that no other shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def grown(captions: Captions, answer) -> None:
    texts = captions.texts
    texts[0].as_py()
    before = private()
    for text in range(len(texts)):
        texts[text].as_py()
    answer.put(private() - before)


def test_a_reading_process_does_not_grow(source, tmp_path):
    """Trap 33: 60,000 captions, 6 MB of text; as Python strings every page of them is copied once it is touched."""
    write(tmp_path, ["a"] * 6)
    content = json.loads((tmp_path / "train.json").read_text())
    content["annotations"] = [{"id": n, "image_id": 1 + n % 3, "caption": f"{n} {'word ' * 20}"} for n in range(60_000)]
    (tmp_path / "train.json").write_text(json.dumps(content))
    captions = through(source, tmp_path / "cache")
    answer = multiprocessing.get_context("fork").Queue()
    worker = multiprocessing.get_context("fork").Process(target=grown, args=(captions, answer))
    worker.start()
    growth = answer.get(timeout=60)
    worker.join()
    assert growth < 1024
