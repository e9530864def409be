"""Text towers of CLIP and SigLIP: pooled as the original, the same alone and in company, trained or frozen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from layers.published import NUM_POSITIONS, PROJECTED, TEXTS, change_weights, without_gradient
from text_encoders.towers import PAIRS, change_text, pair_tower
from torch import Tensor, nn
from transformers import AutoTokenizer

from mmlit.image_encoders.tiny import TinyImageEncoder

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def _model(family: str, folder: Path) -> Any:
    return (transformers.CLIPModel if family == "clip" else transformers.SiglipModel).from_pretrained(folder).eval()


def _features(model: Any, **inputs: Tensor) -> Tensor:
    features = model.get_text_features(**inputs)
    return features if isinstance(features, Tensor) else features.pooler_output


@torch.no_grad()
@pytest.mark.parametrize("end", [2, 570])
@pytest.mark.parametrize("projection", [False, True])
def test_clip_equals_the_original(copy: Callable[[str], Path], projection: bool, end: int) -> None:
    """Each text alone through the library's own model; the end-of-text id as old and as new files say it."""
    folder = copy("clip")
    change_text(folder, eos_token_id=end)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), _model("clip", folder)
    encoder = pair_tower(folder, projection=projection)
    ids, mask = encoder.tokenize(TEXTS)
    encoded = encoder(ids, mask)
    assert encoder.spec.dim == (PROJECTED if projection else 16)
    for row, text in enumerate(TEXTS):
        inputs = tokenizer(text, return_tensors="pt")
        assert ids[row][mask[row]].tolist() == inputs["input_ids"][0].tolist()
        output = model.text_model(**inputs)
        tokens, pooled = output.last_hidden_state[0], output.pooler_output[0]
        assert torch.equal(pooled, tokens[-1])
        if projection:
            tokens, pooled = model.text_projection(tokens), _features(model, **inputs)[0]
        torch.testing.assert_close(encoded.pooled[row], pooled, **CLOSE)
        torch.testing.assert_close(encoded.tokens[row, : len(tokens)], tokens, **CLOSE)


@pytest.mark.parametrize("end", [2, 570])
@pytest.mark.parametrize("projection", [False, True])
def test_pooled_alone_is_the_same(copy: Callable[[str], Path], projection: bool, end: int) -> None:
    """What nobody reads is not computed: the same pooled and the same gradients, texts of different lengths."""
    folder = copy("clip")
    change_text(folder, eos_token_id=end)
    encoder = pair_tower(folder, projection=projection, freeze=False)
    ids, mask = encoder.tokenize(TEXTS)
    found = []
    for needs_tokens in (True, False):
        encoder.needs_tokens = needs_tokens
        encoder.zero_grad()
        encoded = encoder(ids, mask)
        assert encoded.tokens.shape[1] == encoded.mask.shape[1] == (ids.shape[1] if needs_tokens else 0)
        encoded.pooled.square().sum().backward()
        found.append((encoded.pooled.detach(), [weight.grad for weight in encoder.parameters()]))
    torch.testing.assert_close(*found, **CLOSE)


@torch.no_grad()
def test_siglip_equals_the_original(published: dict[str, Path]) -> None:
    """Each text alone, padded to the full length without a mask, as the model was trained."""
    tokenizer, model = AutoTokenizer.from_pretrained(published["siglip"]), _model("siglip", published["siglip"])
    encoder = pair_tower(published["siglip"])
    ids, mask = encoder.tokenize(TEXTS)
    encoded = encoder(ids, mask)
    assert ids.shape[1] < 12
    assert mask.sum(1).tolist() == [3, 10, 4]
    for row, text in enumerate(TEXTS):
        full = tokenizer(text, padding="max_length", max_length=64, return_tensors="pt")["input_ids"]
        assert full.shape == (1, 64)
        states = model.text_model(input_ids=full).last_hidden_state[0]
        torch.testing.assert_close(encoded.pooled[row], _features(model, input_ids=full)[0], **CLOSE)
        torch.testing.assert_close(encoded.tokens[row], states[: ids.shape[1]], **CLOSE)


@torch.no_grad()
def test_siglip_whose_head_changes_the_width(published: dict[str, Path], copy: Callable[[str], Path]) -> None:
    """As the largest of its second version: tokens go through the head, too."""
    folder = copy("siglip")
    change_text(folder, projection_size=48)
    change_weights(folder, {"text_model.head.weight": torch.randn(48, 32), "text_model.head.bias": torch.randn(48)})
    encoder = pair_tower(folder)
    encoded, narrow = encoder(*encoder.tokenize(TEXTS)), pair_tower(published["siglip"])(*encoder.tokenize(TEXTS))
    assert (encoder.spec.dim, encoded.pooled.shape[1]) == (48, 48)
    torch.testing.assert_close(encoded.tokens, encoder.tower.head(narrow.tokens), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("family", PAIRS)
def test_padding_changes_nothing(published: dict[str, Path], family: str) -> None:
    """More of it, of any id, even more than there are positions; and nobody else in the batch matters (Trap 21)."""
    encoder = pair_tower(published[family])
    ids, mask = encoder.tokenize(TEXTS)
    expected = encoder(ids, mask)
    room = NUM_POSITIONS[family] - ids.shape[1]
    for extra in (3, room, room + 5) if family == "siglip" else (3, room):
        wide = encoder(nn.functional.pad(ids, (0, extra), value=7), nn.functional.pad(mask, (0, extra)))
        torch.testing.assert_close(wide.pooled, expected.pooled, **CLOSE)
        torch.testing.assert_close(wide.tokens[:, : ids.shape[1]][mask], expected.tokens[mask], **CLOSE)
        assert wide.tokens.shape[1] == wide.mask.shape[1] == ids.shape[1] + extra
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(encoder(*encoder.tokenize([text])).pooled[0], expected.pooled[row], **CLOSE)


@pytest.mark.parametrize("family", PAIRS)
def test_truncation_keeps_the_end_and_is_counted(published: dict[str, Path], family: str) -> None:
    encoder = pair_tower(published[family], max_length=5)
    ids, mask = encoder.tokenize(["dog", "a dog runs", "the small red dog runs and sits", ""])
    assert ids.shape == (4, 5)
    end = 570 if family == "clip" else 1
    assert all(row[kept][-1] == end for row, kept in zip(ids, mask, strict=True))
    assert encoder.num_truncated == 1
    assert [part.shape for part in encoder.tokenize([])] == [(0, 0), (0, 0)]


def test_spec(published: dict[str, Path]) -> None:
    spec = pair_tower(published["clip"]).spec
    assert (spec.dim, spec.vocabulary_size, spec.mask_id, spec.max_length) == (16, 571, None, 40)
    assert set(spec.special_ids) == {569, 570}


@pytest.mark.parametrize("family", PAIRS)
def test_more_tokens_than_positions(published: dict[str, Path], family: str) -> None:
    limit = NUM_POSITIONS[family]
    pair_tower(published[family], max_length=limit)
    for wrong in (limit + 1, 1):
        with pytest.raises(ValueError, match=rf"max_length must be in .\.\.\.{limit}, got {wrong}"):
            pair_tower(published[family], max_length=wrong)


@pytest.mark.parametrize("tokens", [False, True], ids=["contrastive", "cross_attention"])
@pytest.mark.parametrize(("family", "projection"), [("clip", False), ("clip", True), ("siglip", False)])
def test_no_parameter_without_gradient(published: dict[str, Path], family: str, projection: bool, tokens: bool) -> None:
    """Several devices stop at one."""
    encoder = pair_tower(published[family], projection=projection, freeze=False)
    pictures = TinyImageEncoder(size=16, dim=32, num_layers=0, freeze=False)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert without_gradient(pictures, encoder, tokens=tokens) == []


def test_frozen_means_frozen(published: dict[str, Path]) -> None:
    """Trap 22."""
    encoder = pair_tower(published["clip"], projection=True).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@torch.no_grad()
@pytest.mark.parametrize("family", PAIRS)
def test_half_precision_arithmetic(published: dict[str, Path], family: str) -> None:
    encoder = pair_tower(published[family])
    ids, mask = encoder.tokenize(TEXTS)
    expected = encoder(ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encoder(ids, mask)
    assert (encoded.pooled.float() - expected.pooled).norm() < 0.05 * expected.pooled.norm()


def test_fingerprint_knows_what_changes_the_output(copy: Callable[[str], Path]) -> None:
    """Projection, tokenizer, and settings of the tower that no weight tells."""
    folder = copy("clip")
    prints = {pair_tower(folder).fingerprint(), pair_tower(folder, projection=True).fingerprint()}
    change_text(folder, num_attention_heads=4)
    prints.add(pair_tower(folder).fingerprint())
    merges = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join(merges[:-3]) + "\n")
    prints.add(pair_tower(folder).fingerprint())
    assert len(prints) == 4


@pytest.mark.parametrize("family", PAIRS)
def test_the_library_stays_quiet(
    published: dict[str, Path], family: str, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = pair_tower(published[family])
    encoder.tokenize(["a dog " * 90])
    assert "".join(capsys.readouterr()) == ""
    assert not caplog.records
