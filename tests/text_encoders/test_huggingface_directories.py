"""Directories of Hugging Face text towers: any layout of weights, nothing that does not fit or is damaged."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from layers.published import change, change_weights, publish, write
from safetensors.torch import load_file, save_file
from text_encoders.towers import text_tower
from transformers import AutoTokenizer, BertForMaskedLM, BertModel


def test_layouts_of_weights(published: dict[str, Path], tmp_path: Path) -> None:
    """A pickle; two files with an index; the names that norms had; the head of one task of pre-training alone."""
    weights = load_file(published["bert"] / "model.safetensors")
    expected = text_tower(published["bert"]).fingerprint()
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
        assert text_tower(folder).fingerprint() == expected, layout


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("heads", [True, False])
def test_weights_from_a_file(tiny_bert: str, tmp_path: Path, suffix: str, heads: bool) -> None:
    """With the names of the whole pre-training model or of the bare tower; fp16 becomes fp32."""
    whole = load_file(Path(tiny_bert) / "model.safetensors")
    weights = whole if heads else BertModel.from_pretrained(tiny_bert).state_dict()
    halves = {key: value.half().contiguous() for key, value in weights.items()}
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(halves, path)
    encoder = text_tower(tiny_bert, weights=str(path))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    for key, value in text_tower(tiny_bert).state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_half_precision_directory_becomes_single(folder: Path) -> None:
    BertModel.from_pretrained(folder).half().save_pretrained(folder)
    for weights in ("pretrained", None):
        encoder = text_tower(folder, weights=weights)
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


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
    change_weights(folder, change)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    for weights in ("pretrained", str(folder / "other.safetensors")):
        with pytest.raises(ValueError, match=rf"does not fit the model, keys: {message}"):
            text_tower(folder, weights=weights)


def test_constants_of_old_checkpoints_are_no_weights(folder: Path) -> None:
    change_weights(folder, {"bert.embeddings.position_ids": torch.arange(128)[None]})
    text_tower(folder)


def test_tokenizer_with_more_words_than_the_tower(folder: Path) -> None:
    """Trap 24: ids beyond the embedding table."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer has ids up to 26, the tower's embedding has 26 rows"):
        text_tower(folder)


def test_tokenizer_of_another_model(folder: Path) -> None:
    """Trap 24: a tower that takes another id for padding was trained with another tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 1}))
    with pytest.raises(ValueError, match="the tokenizer pads with id 0, the tower expects 1"):
        text_tower(folder)


def test_vocabulary_of_another_size(published: dict[str, Path], tmp_path: Path) -> None:
    """Trap 24: the cased word pieces beside the uncased tower, whose special ids are the same."""
    folder = Path(shutil.copytree(published["distilbert"], tmp_path / "distilbert"))
    change(folder / "config.json", vocab_size=2000)
    with pytest.raises(ValueError, match="the tokenizer has ids up to 50, the tower's embedding has 2000 rows"):
        text_tower(folder, weights=None)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_text_halves_are_another_class(tmp_path: Path, family: str) -> None:
    publish(tmp_path, family)
    with pytest.raises(ValueError, match=rf"name={tmp_path} is a {family} model, .* use text_encoder=clip or"):
        text_tower(tmp_path)


def test_directory_without_tokenizer(folder: Path) -> None:
    """Trap 24: the library may make a tokenizer to which every word is unknown."""
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=rf"name={folder} (has no vocabulary|cannot be read)"):
        text_tower(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.safetensors", b"junk" * 9), ("config.json", b"{"), ("tokenizer.json", b"{")],
)
def test_damaged_directory(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"name={folder} cannot be read: ") as refused:
        text_tower(folder)
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
        text_tower(name)
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
        text_tower(tiny_bert, **options)


def test_a_model_that_is_no_text_tower(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(ValueError, match="is a resnet model: not a single text tower"):
        text_tower(folder)


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
        text_tower(folder)  # a fast tokenizer needs no class of its own
    assert not (folder / "ran").exists()
    assert not asked
