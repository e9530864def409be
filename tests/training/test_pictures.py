"""Pictures of what a model finds and where its words look; looked at by pixel here, by eye when they were made."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from mmlit.contracts import Encoded, ImageSpec
from mmlit.data.coco import CocoCaptions
from mmlit.data.reader import BatchReader
from mmlit.data.reading import Reading
from mmlit.data.scenes.write import write_scenes
from mmlit.data.token_table import token_table
from mmlit.evaluation.ranking import Gallery, rank_all
from mmlit.evaluation.retrieval import RetrievalResult
from mmlit.text_encoders.huggingface import HuggingFaceTextEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.attention_pictures import Word, attention_page, grid, lit, spans
from mmlit.training.canvas import RIGHT, font, shortened, wrapped
from mmlit.training.gallery_pictures import drawn, image_to_text, text_to_image
from mmlit.training.pictures import show
from mmlit.training.trackers.guard import Guarded


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root=root, train=8, val=8, test=12, size=32, seed=0, workers=1)
    pattern = {"annotations": "annotations/captions_{split}2017.json", "images": "{split}2017"}
    return CocoCaptions(root=root, prepare="", **pattern).read("test")


def encoded(count: int, tokens: int = 0) -> Encoded:
    return Encoded(torch.zeros(count, tokens, 1), torch.arange(float(count))[:, None], torch.ones(count, tokens).bool())


def result(captions, *, right: bool) -> RetrievalResult:
    """Of a model that ranks all pairs rightly, or all wrongly."""
    owner = np.repeat(np.arange(captions.num_images), np.diff(captions.first))
    gallery = Gallery(
        encoded(captions.num_images, 9),
        encoded(captions.num_texts, 40),
        torch.from_numpy(captions.image_id),
        torch.from_numpy(captions.text_id),
        torch.from_numpy(captions.image_id[owner]),
    )
    true = torch.arange(captions.num_images)[:, None] == torch.from_numpy(owner)

    def score(image: Encoded, text: Encoded) -> torch.Tensor:
        found = true[image.pooled[:, 0].long()][:, text.pooled[:, 0].long()].float()
        return found if right else -found

    ranking = rank_all(score, gallery, image_block=64, text_block=64)
    return RetrievalResult({}, ranking, gallery, "full", {})


def green(picture: Image.Image) -> int:
    """Pixels of the frames of right answers."""
    return int((np.asarray(picture) == ImageColor.getrgb(RIGHT)).all(-1).sum())


def test_right_captions_are_framed_in_green(captions):
    page, wrong = (image_to_text(result(captions, right=right), captions, name="run") for right in (True, False))
    assert green(wrong) == 0
    assert green(page) > 4 * 5 * 2 * 800  # four pictures, five right captions each, two long sides


def test_right_pictures_are_framed_in_green_also_where_they_are_missed(captions):
    page, wrong = (text_to_image(result(captions, right=right), captions, name="run") for right in (True, False))
    assert green(page) == 4 * (166**2 - 156**2)  # four frames of 5 px around pictures of 154
    assert green(wrong) == 4 * (118**2 - 108**2)  # beside the five wrong ones, smaller


def test_queries_are_the_same_for_every_gallery_that_holds_them():
    ids = torch.tensor([17, 3, 99, 4, 250, 6, 71])
    order = torch.tensor([6, 2, 0, 1, 5, 4, 3])
    assert ids[drawn(ids, 3, key=1)].tolist() == ids[order][drawn(ids[order], 3, key=1)].tolist()
    assert ids[drawn(ids, 3, key=1)].tolist() != ids[drawn(ids, 3, key=2)].tolist()
    assert len(drawn(ids, 20, key=1)) == 7


def test_a_gallery_of_one_pair_is_shown(captions):
    few = captions.subset(np.array([0]))._replace(first=np.array([0, 1]), texts=captions.texts[:1])
    few = few._replace(text_id=captions.text_id[:1])
    found = result(few, right=True)
    squeezed = [part.squeeze() for part in found.gallery[2:]]  # as torchmetrics hands scalars on
    found = found._replace(gallery=Gallery(*found.gallery[:2], *squeezed))
    assert green(text_to_image(found, few, name="run")) > 0
    assert green(image_to_text(found, few, name="run")) > 0


def test_words_are_those_of_the_tokens_of_a_tiny_encoder():
    encoder = TinyTextEncoder(vocabulary_size=99, max_length=5, dim=32, num_layers=1, freeze=False)
    assert spans(encoder.tokenize, "a red, red star - there") == [
        Word("a", 1, 2), Word("red,", 2, 3), Word("red", 3, 4), Word("star", 4, 5),
    ]  # fmt: skip


def test_words_are_those_of_the_tokens_of_word_pieces(tiny_bert):
    encoder = HuggingFaceTextEncoder(name=tiny_bert, weights=None, pooling="cls", max_length=12, freeze=False)
    assert spans(encoder.tokenize, "dogs on unheard, squares") == [
        Word("dogs", 1, 3), Word("on", 3, 4), Word("unheard,", 4, 6), Word("squares", 6, 8),
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "side"), [(16, 4), (17, 4), (10, 3), (201, 14)])
def test_a_grid_is_of_the_patches_behind_special_tokens(count, side):
    found = grid(torch.arange(float(count)))
    assert found.shape == (side, side)
    assert found[0, 0] == count - side * side
    assert found[-1, -1] == count - 1


def test_a_picture_is_bright_where_the_word_looks():
    weights = np.zeros((4, 4))
    weights[0, 3] = 1.0
    found = np.asarray(lit(Image.new("RGB", (32, 32), "white"), weights, 128))
    assert found[8, 120].min() > 250
    assert found[120, 8].max() < 80


def test_maps_are_of_the_words_and_the_pictures_that_they_stand_beside(captions):
    encoder = TinyTextEncoder(vocabulary_size=99, max_length=40, dim=32, num_layers=1, freeze=False)
    spec = ImageSpec(dim=1, size=32, resize="squash", interpolation="bilinear")
    reading = Reading(decode="exact", on_error="raise", max_bad_share=0.0)
    tokens = token_table(captions, encoder, folder=None)
    reader = BatchReader(captions=captions, tokens=tokens, spec=spec, reading=reading)
    gallery, asked = result(captions, right=True).gallery, []

    def attention_map(image: Encoded, text: Encoded) -> torch.Tensor:
        asked.append((int(image.pooled[0, 0]), int(text.pooled[0, 0])))
        return torch.full((1, 40, 9), 1 / 9)

    page = attention_page(attention_map, gallery, reader, encoder.tokenize, name="run")
    assert asked == [(image, int(captions.first[image])) for image in drawn(gallery.image_id, 4, key=1)]
    assert page.height > 4 * 250


def test_long_words_are_wrapped_and_cut():
    kind = font(15)
    text = "a caption of many words that does not fit on a single line of this width"
    lines = wrapped(text, kind, 160, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert all(kind.getlength(line) <= 160 for line in lines)
    assert " ".join(wrapped(text, kind, 160, 9)) == text
    assert wrapped("", kind, 160, 2) == [""]
    assert kind.getlength(shortened("W" * 99, kind, 100)) <= 100
    assert wrapped("W" * 99 + " b", kind, 100, 3)[1:] == ["b"]


def test_a_picture_that_fails_costs_nothing_else(tmp_path, caplog):
    taken = []
    tracker = SimpleNamespace(log_pictures=lambda pictures, step: taken.append((pictures, step)))
    trainer = SimpleNamespace(loggers=[Guarded(tracker, choice="wandb", directory=tmp_path)], global_step=6)

    def broken() -> Image.Image:
        raise RuntimeError("no\nsuch map")

    with caplog.at_level(logging.WARNING):
        show(trainer, {"bad": broken, "good": lambda: Image.new("RGB", (4, 4))}, folder=tmp_path / "pictures")
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["good.png"]
    assert taken == [({"test/good": tmp_path / "pictures" / "good.png"}, 6)]
    assert "picture bad could not be made: such map" in caplog.text
