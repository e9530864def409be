"""Hugging Face text towers: equal to the original, texts tokenized as its own, trained or frozen."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from layers.published import TEXTS as PLAIN
from layers.published import without_gradient
from safetensors.torch import load_file
from text_encoders.towers import FAMILIES, text_tower
from transformers import AutoModel, AutoTokenizer, RobertaConfig, RobertaForMaskedLM

from mmlit.image_encoders.tiny import TinyImageEncoder

TEXTS = ["a dog", "The small red circle left of the blue square", "a horse sits"]


@torch.no_grad()
def test_equals_the_original(tiny_bert: str) -> None:
    """Each text alone through the library's own model, pooled in plain steps."""
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    first, mean = text_tower(tiny_bert, pooling="cls"), text_tower(tiny_bert, pooling="mean")
    batch = first.tokenize(TEXTS)
    for row, text in enumerate(TEXTS):
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        for encoder, pooled in ((first, states[0]), (mean, states.mean(0))):
            encoded = encoder(*batch)
            torch.testing.assert_close(encoded.tokens[row, : len(states)], states, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(encoded.pooled[row], pooled, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_families_equal_the_original(published: dict[str, Path], family: str) -> None:
    """Each text alone through the library's own model; ours in one batch, longer than ModernBERT's windows."""
    texts = [*PLAIN, "a dog runs and the cat sits on the large blue circle left of the horse " * 2]
    tokenizer = AutoTokenizer.from_pretrained(published[family])
    model = AutoModel.from_pretrained(published[family]).eval()
    first = text_tower(published[family], pooling="cls", max_length=60)
    mean = text_tower(published[family], pooling="mean", max_length=60)
    ids, mask = first.tokenize(texts)
    assert mask.sum(1).max() > 20
    for row, text in enumerate(texts):
        inputs = tokenizer(text, return_tensors="pt")
        assert ids[row][mask[row]].tolist() == inputs["input_ids"][0].tolist()
        states = model(**inputs).last_hidden_state[0]
        for encoder, pooled in ((first, states[0]), (mean, states.mean(0))):
            encoded = encoder(ids, mask)
            torch.testing.assert_close(encoded.tokens[row, : len(states)], states, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(encoded.pooled[row], pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [False, True], ids=["contrastive", "cross_attention"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_parameter_without_gradient(published: dict[str, Path], family: str, pooling: str, tokens: bool) -> None:
    """Several devices stop at one."""
    encoder = text_tower(published[family], pooling=pooling, freeze=False)
    pictures = TinyImageEncoder(size=16, dim=32, num_layers=0, freeze=False)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert without_gradient(pictures, encoder, tokens=tokens) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_many_texts_go_through_the_tower_by_length(
    published: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and gradients are those of the whole batch, texts stay in their order, and little is padded."""
    encoder = text_tower(published[family], pooling="mean", max_length=60, freeze=False).eval()
    words = ["dog", "cat", "horse"]
    texts = [" ".join(words * (1 + row % 6)) for row in range(150)]
    ids, mask = encoder.tokenize(texts)
    ids, mask = torch.cat([ids, ids[:, :3]], 1), torch.nn.functional.pad(mask, (0, 3))  # wider than any text
    seen: list[int] = []
    encoder.tower.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )

    def outcome() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        encoder.zero_grad()
        encoded = encoder(ids, mask)
        (encoded.pooled.sin() * torch.linspace(0, 1, 150)[:, None]).sum().backward()
        gradient = torch.cat([part.grad.flatten() for part in encoder.parameters() if part.grad is not None])
        return encoded.pooled.detach(), (encoded.tokens * encoded.mask[..., None]).detach(), gradient

    found = outcome()
    num_parts, in_parts = len(seen), sum(seen)
    monkeypatch.setattr("mmlit.text_encoders.huggingface._PART", 150)
    expected = outcome()
    assert num_parts == 3
    assert in_parts < 0.75 * seen[-1], "seen whole, each text is as wide as the widest"
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    monkeypatch.undo()
    encoder.needs_tokens = False
    alone = encoder(ids, mask)
    assert alone.tokens.shape[:2] == (150, 0)
    torch.testing.assert_close(alone.pooled.detach(), expected[0], rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_arithmetic(published: dict[str, Path], family: str) -> None:
    encoder = text_tower(published[family])
    ids, mask = encoder.tokenize(PLAIN)
    expected = encoder(ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encoder(ids, mask)
    assert (encoded.pooled.float() - expected.pooled).norm() < 0.05 * expected.pooled.norm()


def test_spec(tiny_bert: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    spec = text_tower(tiny_bert).spec
    assert (spec.dim, spec.max_length, spec.vocabulary_size) == (32, 16, len(tokenizer))
    assert spec.mask_id == tokenizer.convert_tokens_to_ids("[MASK]")
    assert set(spec.special_ids) == {0, 1, 2, 3, 4}


def test_truncation_keeps_special_tokens_and_is_counted(tiny_bert: str) -> None:
    encoder = text_tower(tiny_bert, max_length=5)
    ids, mask = encoder.tokenize(["a dog", "a dog sits", "a red dog sits"])
    assert ids.shape == (3, 5)
    assert ids[2, -1] == 3  # [SEP]
    assert mask.sum(1).tolist() == [4, 5, 5]
    encoder.tokenize(["a dog " * 20])
    assert encoder.num_truncated == 2


def test_no_texts(tiny_bert: str) -> None:
    assert [part.shape for part in text_tower(tiny_bert).tokenize([])] == [(0, 0), (0, 0)]


@torch.no_grad()
def test_padding_may_hold_anything(tiny_bert: str) -> None:
    encoder = text_tower(tiny_bert)
    ids, mask = encoder.tokenize(TEXTS)
    assert torch.equal(encoder(ids, mask).pooled, encoder(ids.masked_fill(~mask, 7), mask).pooled)


def test_the_unused_pooler_is_dropped(tiny_bert: str) -> None:
    """A parameter without gradient would stop several devices; the fixture's file has one, and a head."""
    assert any(key.startswith("bert.pooler.") for key in load_file(Path(tiny_bert) / "model.safetensors"))
    for weights in ("pretrained", None):
        assert not any("pooler" in key or "cls." in key for key in text_tower(tiny_bert, weights=weights).state_dict())


def test_random_weights_are_others(tiny_bert: str) -> None:
    assert text_tower(tiny_bert, weights=None).fingerprint() != text_tower(tiny_bert).fingerprint()


def test_trained_tower_trains(tiny_bert: str) -> None:
    """Trap 22, the other way round: a tower that is not frozen has its dropout on, which the library turns off."""
    encoder = text_tower(tiny_bert, freeze=False)
    assert encoder.training
    assert all(module.training for module in encoder.modules())


def test_more_tokens_than_positions(tiny_bert: str) -> None:
    text_tower(tiny_bert, max_length=128)
    for wrong in (129, 2, 0):
        with pytest.raises(ValueError, match=rf"max_length must be in 3\.\.\.128, got {wrong}"):
            text_tower(tiny_bert, max_length=wrong)


def test_positions_behind_the_padding(folder: Path) -> None:
    """RoBERTa's table of 20 has 18 positions; its head of pre-training is dropped, too, and it brings no pooler."""
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=26, max_position_embeddings=20, pad_token_id=1, **sizes)
    RobertaForMaskedLM(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[UNK]"})  # id 1, as RoBERTa's
    tokenizer.save_pretrained(folder)
    encoder = text_tower(folder, max_length=18)
    assert encoder(*encoder.tokenize(["a dog " * 20])).tokens.shape == (1, 18, 32)
    with pytest.raises(ValueError, match=r"max_length must be in 3\.\.\.18, got 19"):
        text_tower(folder, max_length=19)


def test_libraries_stay_quiet_only_meanwhile(tiny_bert: str, capsys: Any) -> None:
    from transformers.utils import logging as library

    before = library.get_verbosity(), library.is_progress_bar_enabled(), logging.getLogger("huggingface_hub").level
    text_tower(tiny_bert).tokenize(TEXTS)
    after = library.get_verbosity(), library.is_progress_bar_enabled(), logging.getLogger("huggingface_hub").level
    assert before == after
    assert "".join(capsys.readouterr()) == ""
    assert "TOKENIZERS_PARALLELISM" in os.environ  # else a warning at every fork


def test_fingerprint_knows_pooling_and_tokenizer(tiny_bert: str, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": false}')
    assert text_tower(folder).tokenize(["A dog"])[0].tolist() != text_tower(tiny_bert).tokenize(["A dog"])[0].tolist()
    prints = {
        text_tower(tiny_bert).fingerprint(),
        text_tower(tiny_bert, pooling="cls").fingerprint(),
        text_tower(folder).fingerprint(),
    }
    assert len(prints) == 3
