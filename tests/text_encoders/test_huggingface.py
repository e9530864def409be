"""Hugging Face text towers: equal to the original, loaded from a real directory, refused where something is wrong."""

import json
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from layers.published import TEXTS as PLAIN
from layers.published import change, publish, without_gradient, write
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertForMaskedLM, BertModel, RobertaConfig, RobertaForMaskedLM

from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.huggingface import HuggingFaceTextEncoder

TEXTS = ["a dog", "The small red circle left of the blue square", "a horse sits"]
FAMILIES = ("bert", "minilm", "distilbert", "roberta", "modernbert")


def _encoder(name: str | Path, **options: Any) -> HuggingFaceTextEncoder:
    settings: dict[str, Any] = {"weights": "pretrained", "pooling": "mean", "max_length": 16, "freeze": True}
    return HuggingFaceTextEncoder(**({"name": str(name)} | settings | options))


@pytest.fixture
def folder(tiny_bert: str, tmp_path: Path) -> Path:
    """A copy of the published directory that a test may damage."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of each family."""
    return {family: publish(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def _change_weights(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    weights = load_file(folder / "model.safetensors") | change
    kept = {key: value for key, value in weights.items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def test_equals_the_original(tiny_bert: str) -> None:
    """Each text alone through the library's own model, pooled in plain steps."""
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    first, mean = _encoder(tiny_bert, pooling="cls"), _encoder(tiny_bert, pooling="mean")
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
    first = _encoder(published[family], pooling="cls", max_length=60)
    mean = _encoder(published[family], pooling="mean", max_length=60)
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
    encoder = _encoder(published[family], pooling=pooling, freeze=False)
    pictures = TinyImageEncoder(size=16, dim=32, num_layers=0, freeze=False)
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert without_gradient(pictures, encoder, tokens=tokens) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_many_texts_go_through_the_tower_by_length(
    published: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and gradients are those of the whole batch, texts stay in their order, and little is padded."""
    encoder = _encoder(published[family], pooling="mean", max_length=60, freeze=False).eval()
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
    encoder = _encoder(published[family])
    ids, mask = encoder.tokenize(PLAIN)
    expected = encoder(ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encoder(ids, mask)
    assert (encoded.pooled.float() - expected.pooled).norm() < 0.05 * expected.pooled.norm()


def test_layouts_of_weights(published: dict[str, Path], tmp_path: Path) -> None:
    """A pickle; two files with an index; the names that norms had; the head of one task of pre-training alone."""
    weights = load_file(published["bert"] / "model.safetensors")
    expected = _encoder(published["bert"]).fingerprint()
    for layout in ("bin", "shards", "names", "masked"):
        folder = Path(shutil.copytree(published["bert"], tmp_path / layout))
        file = folder / "model.safetensors"
        file.unlink()
        if layout == "bin":
            torch.save(weights, folder / "pytorch_model.bin")
        elif layout == "shards":
            places = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(weights)}
            for name in set(places.values()):
                part = {key: value for key, value in weights.items() if places[key] == name}
                save_file(part, folder / name, metadata={"format": "pt"})
            write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
        elif layout == "names":
            norms = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
            renamed = {"bert.embeddings.position_ids": torch.arange(64)[None]}
            for key, value in weights.items():
                tail = ".".join(key.split(".")[-2:])
                renamed[key.removesuffix(tail) + norms.get(tail, tail)] = value
            torch.save(renamed, folder / "pytorch_model.bin")
        else:
            BertForMaskedLM.from_pretrained(published["bert"]).save_pretrained(folder)
        assert _encoder(folder).fingerprint() == expected, layout


def test_spec(tiny_bert: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    spec = _encoder(tiny_bert).spec
    assert (spec.dim, spec.max_length, spec.vocabulary_size) == (32, 16, len(tokenizer))
    assert spec.mask_id == tokenizer.convert_tokens_to_ids("[MASK]")
    assert set(spec.special_ids) == {0, 1, 2, 3, 4}


def test_truncation_keeps_special_tokens_and_is_counted(tiny_bert: str) -> None:
    encoder = _encoder(tiny_bert, max_length=5)
    ids, mask = encoder.tokenize(["a dog", "a dog sits", "a red dog sits"])
    assert ids.shape == (3, 5)
    assert ids[2, -1] == 3  # [SEP]
    assert mask.sum(1).tolist() == [4, 5, 5]
    encoder.tokenize(["a dog " * 20])
    assert encoder.num_truncated == 2


def test_no_texts(tiny_bert: str) -> None:
    assert [part.shape for part in _encoder(tiny_bert).tokenize([])] == [(0, 0), (0, 0)]


@torch.no_grad()
def test_padding_may_hold_anything(tiny_bert: str) -> None:
    encoder = _encoder(tiny_bert)
    ids, mask = encoder.tokenize(TEXTS)
    assert torch.equal(encoder(ids, mask).pooled, encoder(ids.masked_fill(~mask, 7), mask).pooled)


def test_the_unused_pooler_is_dropped(tiny_bert: str) -> None:
    """A parameter without gradient would stop several devices; the fixture's file has one, and a head."""
    assert any(key.startswith("bert.pooler.") for key in load_file(Path(tiny_bert) / "model.safetensors"))
    for weights in ("pretrained", None):
        assert not any("pooler" in key or "cls." in key for key in _encoder(tiny_bert, weights=weights).state_dict())


def test_random_weights_are_others(tiny_bert: str) -> None:
    assert _encoder(tiny_bert, weights=None).fingerprint() != _encoder(tiny_bert).fingerprint()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("heads", [True, False])
def test_weights_from_a_file(tiny_bert: str, tmp_path: Path, suffix: str, heads: bool) -> None:
    """With the names of the whole pre-training model or of the bare tower; fp16 becomes fp32."""
    whole = load_file(Path(tiny_bert) / "model.safetensors")
    weights = whole if heads else BertModel.from_pretrained(tiny_bert).state_dict()
    halves = {key: value.half().contiguous() for key, value in weights.items()}
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(halves, path)
    encoder = _encoder(tiny_bert, weights=str(path))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    for key, value in _encoder(tiny_bert).state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_half_precision_directory_becomes_single(folder: Path) -> None:
    BertModel.from_pretrained(folder).half().save_pretrained(folder)
    for weights in ("pretrained", None):
        encoder = _encoder(folder, weights=weights)
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_trained_tower_trains(tiny_bert: str) -> None:
    """Trap 22, the other way round: a tower that is not frozen has its dropout on, which the library turns off."""
    encoder = _encoder(tiny_bert, freeze=False)
    assert encoder.training
    assert all(module.training for module in encoder.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bert.encoder.layer.1.output.dense.bias": None}, r"1 missing \(encoder.layer.1.output.dense.bias\)"),
        ({"bert.encoder.layer.2.output.dense.bias": torch.ones(32)}, r"1 unexpected \(.*layer.2.output.dense.bias\)"),
        (
            {"bert.embeddings.word_embeddings.weight": torch.ones(9, 32)},
            r"1 of another shape \(embeddings.word_embeddings.weight",
        ),
    ],
)
def test_weights_that_do_not_fit(folder: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    """In the directory itself and in a file of their own."""
    _change_weights(folder, change)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    for weights in ("pretrained", str(folder / "other.safetensors")):
        with pytest.raises(ValueError, match=rf"does not fit the model, keys: {message}"):
            _encoder(folder, weights=weights)


def test_constants_of_old_checkpoints_are_no_weights(folder: Path) -> None:
    _change_weights(folder, {"bert.embeddings.position_ids": torch.arange(128)[None]})
    _encoder(folder)


def test_tokenizer_with_more_words_than_the_tower(folder: Path) -> None:
    """Trap 24: ids beyond the embedding table."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer has ids up to 26, the tower's embedding has 26 rows"):
        _encoder(folder)


def test_tokenizer_of_another_model(folder: Path) -> None:
    """Trap 24: a tower that takes another id for padding was trained with another tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 1}))
    with pytest.raises(ValueError, match="the tokenizer pads with id 0, the tower expects 1"):
        _encoder(folder)


def test_vocabulary_of_another_size(published: dict[str, Path], tmp_path: Path) -> None:
    """Trap 24: the cased word pieces beside the uncased tower, whose special ids are the same."""
    folder = Path(shutil.copytree(published["distilbert"], tmp_path / "distilbert"))
    change(folder / "config.json", vocab_size=2000)
    with pytest.raises(ValueError, match="the tokenizer has ids up to 50, the tower's embedding has 2000 rows"):
        _encoder(folder, weights=None)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_text_halves_are_another_class(tmp_path: Path, family: str) -> None:
    publish(tmp_path, family)
    with pytest.raises(ValueError, match=rf"name={tmp_path} is a {family} model, .* use text_encoder=clip or"):
        _encoder(tmp_path)


def test_directory_without_tokenizer(folder: Path) -> None:
    """Trap 24: the library may make a tokenizer to which every word is unknown."""
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=rf"name={folder} (has no vocabulary|cannot be read)"):
        _encoder(folder)


def test_more_tokens_than_positions(tiny_bert: str) -> None:
    _encoder(tiny_bert, max_length=128)
    for wrong in (129, 2, 0):
        with pytest.raises(ValueError, match=rf"max_length must be in 3\.\.\.128, got {wrong}"):
            _encoder(tiny_bert, max_length=wrong)


def test_positions_behind_the_padding(folder: Path) -> None:
    """RoBERTa's table of 20 has 18 positions; its head of pre-training is dropped, too, and it brings no pooler."""
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=26, max_position_embeddings=20, pad_token_id=1, **sizes)
    RobertaForMaskedLM(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[UNK]"})  # id 1, as RoBERTa's
    tokenizer.save_pretrained(folder)
    encoder = _encoder(folder, max_length=18)
    assert encoder(*encoder.tokenize(["a dog " * 20])).tokens.shape == (1, 18, 32)
    with pytest.raises(ValueError, match=r"max_length must be in 3\.\.\.18, got 19"):
        _encoder(folder, max_length=19)


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.safetensors", b"junk" * 9), ("config.json", b"{"), ("tokenizer.json", b"{")],
)
def test_damaged_directory(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"name={folder} cannot be read: ") as refused:
        _encoder(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-model", "is neither a directory nor obtainable from the Hugging"),
        ("someone/no-such-model", "is neither a directory nor obtainable from the Hugging"),
        ("/no/such/directory", "is no directory$"),
        ("./misspelt", "is no directory$"),
        ("models/of/mine", "is no directory$"),
        ("models/bret", r"is no directory; did you mean models/bert\?$"),
    ],
)
def test_neither_directory_nor_hub(
    name: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: Any,
) -> None:
    """A name that can only mean a directory never goes to the hub, where it may be somebody else's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "bert").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"name={name} {message}") as told:
        _encoder(name)
    assert "\n" not in str(told.value)
    assert not caplog.records
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": "pretraned"}, ValueError, "weights must be pretrained, null, or a .* file, got pretraned"),
        ({"weights": "/no/such.pt"}, FileNotFoundError, "weights=/no/such.pt: no such file"),
    ],
)
def test_wrong_weights(tiny_bert: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _encoder(tiny_bert, **options)


def test_a_model_that_is_no_text_tower(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(ValueError, match="is a resnet model: not a single text tower"):
        _encoder(folder)


def test_libraries_stay_quiet_only_meanwhile(tiny_bert: str, capsys: Any) -> None:
    from transformers.utils import logging as library

    before = library.get_verbosity(), library.is_progress_bar_enabled(), logging.getLogger("huggingface_hub").level
    _encoder(tiny_bert).tokenize(TEXTS)
    after = library.get_verbosity(), library.is_progress_bar_enabled(), logging.getLogger("huggingface_hub").level
    assert before == after
    assert "".join(capsys.readouterr()) == ""
    assert "TOKENIZERS_PARALLELISM" in os.environ  # else a warning at every fork


def test_fingerprint_knows_pooling_and_tokenizer(tiny_bert: str, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": false}')
    assert _encoder(folder).tokenize(["A dog"])[0].tolist() != _encoder(tiny_bert).tokenize(["A dog"])[0].tolist()
    prints = {
        _encoder(tiny_bert).fingerprint(),
        _encoder(tiny_bert, pooling="cls").fingerprint(),
        _encoder(folder).fingerprint(),
    }
    assert len(prints) == 3


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_beside_the_weights_is_never_run(
    folder: Path, file: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Trap 35: nor is the user asked, who may say yes."""
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nclass C: pass\n")
    entry = {"AutoConfig": "evil.C"} if file == "config.json" else {"AutoTokenizer": ["evil.C", "evil.C"]}
    change(folder / file, auto_map=entry, **({"model_type": "evil"} if file == "config.json" else {}))
    if file == "tokenizer_config.json":
        change(folder / file, tokenizer_class="C")
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    with suppress(ValueError) if file == "tokenizer_config.json" else pytest.raises(ValueError, match="cannot be read"):
        _encoder(folder)  # a fast tokenizer needs no class of its own
    assert not (folder / "ran").exists()
    assert not asked
