"""Tables of frozen encoders' outputs: the same vectors, found by what determines them."""

import numpy as np
import pytest
import torch

from mmlit.contracts import ImageSpec
from mmlit.data.coco import CocoCaptions
from mmlit.data.reader import BatchReader
from mmlit.data.reading import Reading
from mmlit.data.token_table import token_table
from mmlit.features.memory import MemoryFeatures
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    from mmlit.data.scenes.write import write_scenes

    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root=folder, train=20, val=4, test=4, size=32, seed=0, workers=1)
    return folder


def encoders(seed: int = 0) -> tuple[TinyImageEncoder, TinyTextEncoder]:
    torch.manual_seed(seed)
    return (
        TinyImageEncoder(size=32, dim=32, num_layers=1, freeze=True),
        TinyTextEncoder(vocabulary_size=500, max_length=24, dim=32, num_layers=1, freeze=True),
    )


def reader(root, text: TinyTextEncoder, spec: ImageSpec) -> BatchReader:
    source = CocoCaptions(
        root=root, annotations="annotations/captions_{split}2017.json", images="{split}2017", prepare=None
    )
    captions = source.read("train")
    return reading(captions, text, spec)


def reading(captions, text: TinyTextEncoder, spec: ImageSpec) -> BatchReader:
    how = Reading(decode="exact", on_error="raise", max_bad_share=0.0)
    return BatchReader(captions=captions, tokens=token_table(captions, text, folder=None), spec=spec, reading=how)


@pytest.mark.parametrize("tokens", [True, False])
@torch.no_grad()
def test_tables_hold_what_the_encoders_say(root, tokens):
    image, text = encoders()
    rows = reader(root, text, image.spec)
    MemoryFeatures(limit_gib=1.0, folder=None).fill({"train": rows}, image, text, tokens=tokens, device=CPU)
    index = [7, 0, 19]
    seen, expected = rows.image_store.take(index), image(rows.pixels(index))
    torch.testing.assert_close(seen.pooled, expected.pooled, rtol=1e-5, atol=1e-5)
    words, said = rows.text_store.take([3, 50, 99]), text(*rows.tokens.take([3, 50, 99]))
    torch.testing.assert_close(words.pooled, said.pooled, rtol=1e-5, atol=1e-5)
    if tokens:
        torch.testing.assert_close(seen.tokens, expected.tokens, rtol=1e-5, atol=1e-5)
        assert (words.mask == said.mask).all()
        torch.testing.assert_close(words.tokens[words.mask], said.tokens[said.mask], rtol=1e-5, atol=1e-5)
    else:
        assert seen.tokens.shape == (3, 0, 32)
        assert words.mask.shape == (3, 0)


def test_a_table_in_the_folder_is_found_by_what_determines_it(root, tmp_path, monkeypatch):
    """Another encoder or other data never hits; the same one does, without encoding."""
    image, text = encoders()
    rows = reader(root, text, image.spec)
    features = MemoryFeatures(limit_gib=1.0, folder=str(tmp_path / "f"))
    features.fill({"train": rows}, image, text, tokens=True, device=CPU)
    assert len(list((tmp_path / "f").iterdir())) == 2
    again = reader(root, text, image.spec)
    calls = []
    monkeypatch.setattr(TinyImageEncoder, "forward", lambda *_: calls.append(1))
    monkeypatch.setattr(TinyTextEncoder, "forward", lambda *_: calls.append(1))
    features.fill({"train": again}, *encoders(), tokens=True, device=CPU)
    assert not calls
    assert torch.equal(again.image_store.take([4]).tokens, rows.image_store.take([4]).tokens)
    monkeypatch.undo()
    features.fill({"train": reader(root, text, image.spec)}, *encoders(seed=1), tokens=True, device=CPU)
    assert len(list((tmp_path / "f").iterdir())) == 4
    other = rows.captions.subset(np.arange(10))
    part = reading(other, text, image.spec)
    features.fill({"train": part}, image, text, tokens=True, device=CPU)
    assert len(list((tmp_path / "f").iterdir())) == 6


def test_what_does_not_fit_is_refused_before_it_is_encoded(root):
    image, text = encoders()
    rows = reader(root, text, image.spec)
    with pytest.raises(ValueError, match=r"train: images: features would need about .* GiB"):
        MemoryFeatures(limit_gib=1e-6, folder=None).fill({"train": rows}, image, text, tokens=True, device=CPU)
    with pytest.raises(ValueError, match="limit_gib must be > 0"):
        MemoryFeatures(limit_gib=0.0, folder=None)


def test_only_frozen_sides_are_stored(root):
    image, text = encoders()
    text.requires_grad_(True)
    text.frozen = False
    rows = reader(root, text, image.spec)
    MemoryFeatures(limit_gib=1.0, folder=None).fill({"train": rows}, image, text, tokens=False, device=CPU)
    assert rows.image_store is not None
    assert rows.text_store is None
