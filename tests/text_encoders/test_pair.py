"""Text towers of CLIP and SigLIP: pooled as the original, only their half is kept, refused where something is wrong."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import transformers
from layers.published import NUM_POSITIONS, PROJECTED, TEXTS, WORDS, change, publish, without_gradient, write
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.pair import PairTextEncoder

FAMILIES = ("clip", "siglip")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of both towers of each family."""
    return {family: publish(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture
def copy(published: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A directory that a test may damage."""
    return lambda family: Path(shutil.copytree(published[family], tmp_path / family))


def _encoder(name: str | Path, **options: Any) -> PairTextEncoder:
    settings: dict[str, Any] = {"weights": "pretrained", "projection": False, "max_length": 40, "freeze": True}
    return PairTextEncoder(**({"name": str(name)} | settings | options))


def _model(family: str, folder: Path) -> Any:
    return (transformers.CLIPModel if family == "clip" else transformers.SiglipModel).from_pretrained(folder).eval()


def _features(model: Any, **inputs: Tensor) -> Tensor:
    features = model.get_text_features(**inputs)
    return features if isinstance(features, Tensor) else features.pooler_output


def _change_text(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", text_config=config["text_config"] | entries)


def _change_weights(folder: Path, change: dict[str, Tensor | None]) -> None:
    weights = load_file(folder / "model.safetensors") | change
    kept = {key: value for key, value in weights.items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
@pytest.mark.parametrize("end", [2, 570])
@pytest.mark.parametrize("projection", [False, True])
def test_clip_equals_the_original(copy: Callable[[str], Path], projection: bool, end: int) -> None:
    """Each text alone through the library's own model; the end-of-text id as old and as new files say it."""
    folder = copy("clip")
    _change_text(folder, eos_token_id=end)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), _model("clip", folder)
    encoder = _encoder(folder, projection=projection)
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
    _change_text(folder, eos_token_id=end)
    encoder = _encoder(folder, projection=projection, freeze=False)
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
    encoder = _encoder(published["siglip"])
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
    _change_text(folder, projection_size=48)
    _change_weights(folder, {"text_model.head.weight": torch.randn(48, 32), "text_model.head.bias": torch.randn(48)})
    encoder = _encoder(folder)
    encoded, narrow = encoder(*encoder.tokenize(TEXTS)), _encoder(published["siglip"])(*encoder.tokenize(TEXTS))
    assert (encoder.spec.dim, encoded.pooled.shape[1]) == (48, 48)
    torch.testing.assert_close(encoded.tokens, encoder.tower.head(narrow.tokens), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(published: dict[str, Path], family: str) -> None:
    """More of it, of any id, even more than there are positions; and nobody else in the batch matters (Trap 21)."""
    encoder = _encoder(published[family])
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


@pytest.mark.parametrize("family", FAMILIES)
def test_truncation_keeps_the_end_and_is_counted(published: dict[str, Path], family: str) -> None:
    encoder = _encoder(published[family], max_length=5)
    ids, mask = encoder.tokenize(["dog", "a dog runs", "the small red dog runs and sits", ""])
    assert ids.shape == (4, 5)
    end = 570 if family == "clip" else 1
    assert all(row[kept][-1] == end for row, kept in zip(ids, mask, strict=True))
    assert encoder.num_truncated == 1
    assert [part.shape for part in encoder.tokenize([])] == [(0, 0), (0, 0)]


def test_spec(published: dict[str, Path]) -> None:
    spec = _encoder(published["clip"]).spec
    assert (spec.dim, spec.vocabulary_size, spec.mask_id, spec.max_length) == (16, 571, None, 40)
    assert set(spec.special_ids) == {569, 570}


@pytest.mark.parametrize("family", FAMILIES)
def test_more_tokens_than_positions(published: dict[str, Path], family: str) -> None:
    limit = NUM_POSITIONS[family]
    _encoder(published[family], max_length=limit)
    for wrong in (limit + 1, 1):
        with pytest.raises(ValueError, match=rf"max_length must be in .\.\.\.{limit}, got {wrong}"):
            _encoder(published[family], max_length=wrong)


@pytest.fixture(scope="module")
def pieces() -> bytes:
    """A sentencepiece model whose end of text has the id 1, as SigLIP's."""
    model, lines = io.BytesIO(), [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 9),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=0,
        minloglevel=2,
    )
    return model.getvalue()


def test_sentencepiece(copy: Callable[[str], Path], pieces: bytes) -> None:
    """As published for SigLIP: without capitals and punctuation, and told in a table of special tokens."""
    folder = copy("siglip")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(pieces)
    token = {"lstrip": True, "normalized": False, "rstrip": True, "single_word": False, "special": True}
    special = {"0": token | {"content": "<unk>"}, "1": token | {"content": "</s>"}}
    ends = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_input_names": ["input_ids"]}
    kind = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_max_length": 64}
    write(folder / "tokenizer_config.json", {"added_tokens_decoder": special, **ends, **kind})
    encoder = _encoder(folder, max_length=6)
    texts = ["A dog, runs!", "a dog runs", "the small red dog runs on the left of the circle"]
    ids, mask = encoder.tokenize(texts)
    whole = AutoTokenizer.from_pretrained(folder)(texts, verbose=False)["input_ids"]
    assert ids[0].tolist() == ids[1].tolist()
    assert whole[0] == whole[1] == ids[0][mask[0]].tolist()
    assert len(whole[2]) > 6
    assert ids[2].tolist() == [*whole[2][:5], 1]
    assert encoder.num_truncated == 1
    before = encoder.fingerprint()
    assert _encoder(folder, max_length=6).fingerprint() == before
    change(folder / "tokenizer_config.json", do_lower_case=False)
    assert _encoder(folder, max_length=6).fingerprint() != before


@pytest.mark.parametrize("family", FAMILIES)
def test_only_this_half_is_kept(published: dict[str, Path], copy: Callable[[str], Path], family: str) -> None:
    """As many parameters as the text side has; what the file holds of the other is not even looked at."""
    folder = copy(family)
    other = {key: None for key in load_file(folder / "model.safetensors") if key.startswith("vis")}
    _change_weights(folder, {**other, "logit_scale": None})
    whole = load_file(published[family] / "model.safetensors")
    own = sum(value.numel() for key, value in whole.items() if key.startswith("text_model."))
    for name in (folder, published[family]):
        encoder = _encoder(name)
        assert sum(parameter.numel() for parameter in encoder.parameters()) == own
        assert not [key for key in encoder.state_dict() if "vis" in key or "logit" in key]
    assert _encoder(folder).fingerprint() == _encoder(published[family]).fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_model.encoder.layers.1.mlp.fc2.bias": None}, r"1 missing \((text_model.)?encoder.layers.1.mlp.fc2"),
        ({"text_model.encoder.layers.2.mlp.fc2.bias": torch.ones(32)}, r"1 unexpected \(.*layers.2.mlp.fc2.bias"),
        ({"text_model.head.bias": torch.ones(9)}, r"1 of another shape \((text_model.)?head.bias"),
    ],
)
def test_weights_that_do_not_fit(copy: Callable[[str], Path], change: dict[str, Tensor | None], message: str) -> None:
    """Strict about this half, in the directory itself and in a file of its own."""
    folder = copy("siglip")
    _change_weights(folder, change)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    for weights in ("pretrained", str(folder / "other.safetensors")):
        with pytest.raises(ValueError, match=rf"does not fit the model, keys: {message}"):
            _encoder(folder, weights=weights)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_directories_of_the_text_side_alone(copy: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    """With tokens in half precision; without a projection none is made up."""
    folder = copy(family)
    whole = _encoder(folder)
    expected = whole(*whole.tokenize(TEXTS))
    kind = "CLIP" if family == "clip" else "Siglip"
    model = getattr(transformers, f"{kind}TextModel").from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.half().save_pretrained(folder)
    encoder = _encoder(folder)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    torch.testing.assert_close(encoder(*encoder.tokenize(TEXTS)).pooled, expected.pooled, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match=rf"projection=true: name={folder} is a {family}_text_model model without"):
        _encoder(folder, projection=True)


@torch.no_grad()
def test_text_side_with_its_projection(published: dict[str, Path], copy: Callable[[str], Path]) -> None:
    text = transformers.CLIPConfig.from_pretrained(published["clip"]).text_config
    text.projection_dim = PROJECTED
    folder = copy("clip")
    model = transformers.CLIPTextModelWithProjection.from_pretrained(published["clip"], config=text)
    model.save_pretrained(folder)
    for projection in (True, False):
        pair = _encoder(folder, projection=projection), _encoder(published["clip"], projection=projection)
        one, other = (encoder(*encoder.tokenize(TEXTS)) for encoder in pair)
        assert torch.equal(one.pooled, other.pooled)


def test_siglip_has_no_projection(published: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=rf"projection=true: name={published['siglip']} is a siglip model without"):
        _encoder(published["siglip"], projection=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_word_pieces_beside_the_tower(copy: Callable[[str], Path], tiny_bert: str, family: str) -> None:
    """Trap 24: BERT's ids are all rows of the table, and all of them mean something else."""
    folder = copy(family)
    for file in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny_bert) / file, folder)
    with pytest.raises(ValueError, match=rf"name={folder}: the tokenizer ends a text with id None, the tower expects"):
        _encoder(folder)


def test_tokenizer_of_another_clip(copy: Callable[[str], Path]) -> None:
    """Trap 24: another id for the end of a text, or ids beyond the table."""
    folder = copy("clip")
    _change_text(folder, eos_token_id=569)
    with pytest.raises(ValueError, match="the tokenizer ends a text with id 570, the tower expects 569"):
        _encoder(folder)
    _change_text(folder, vocab_size=570)
    with pytest.raises(ValueError, match="the tokenizer has ids up to 570, the tower's embedding has 570 rows"):
        _encoder(folder, weights=None)


def test_models_that_are_no_pair(tiny_bert: str, published: dict[str, Path], copy: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=rf"name={tiny_bert} is a bert model: not CLIP or SigLIP with a text tower"):
        _encoder(tiny_bert)
    folder = copy("clip")
    change(folder / "config.json", model_type="clip_vision_model")
    with pytest.raises(ValueError, match="is a clip_vision_model model: not CLIP or SigLIP with a text tower"):
        _encoder(folder)
    with pytest.raises(ValueError, match="name=no/such is neither a directory nor obtainable"):
        _encoder("no/such")


def test_random_weights_and_weights_of_a_file(published: dict[str, Path], tmp_path: Path) -> None:
    """The file may be the whole pair's."""
    folder, file = published["clip"], tmp_path / "weights.pt"
    torch.save(load_file(folder / "model.safetensors"), file)
    expected = _encoder(folder, projection=True).fingerprint()
    assert _encoder(folder, projection=True, weights=str(file)).fingerprint() == expected
    assert _encoder(folder, projection=True, weights=None).fingerprint() != expected


@pytest.mark.parametrize("tokens", [False, True], ids=["contrastive", "cross_attention"])
@pytest.mark.parametrize(("family", "projection"), [("clip", False), ("clip", True), ("siglip", False)])
def test_no_parameter_without_gradient(published: dict[str, Path], family: str, projection: bool, tokens: bool) -> None:
    """Several devices stop at one."""
    encoder = _encoder(published[family], projection=projection, freeze=False)
    pictures = TinyImageEncoder(size=16, dim=32, num_layers=0, freeze=False)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert without_gradient(pictures, encoder, tokens=tokens) == []


def test_frozen_means_frozen(published: dict[str, Path]) -> None:
    """Trap 22."""
    encoder = _encoder(published["clip"], projection=True).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_arithmetic(published: dict[str, Path], family: str) -> None:
    encoder = _encoder(published[family])
    ids, mask = encoder.tokenize(TEXTS)
    expected = encoder(ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encoder(ids, mask)
    assert (encoded.pooled.float() - expected.pooled).norm() < 0.05 * expected.pooled.norm()


def test_fingerprint_knows_what_changes_the_output(copy: Callable[[str], Path]) -> None:
    """Projection, tokenizer, and settings of the tower that no weight tells."""
    folder = copy("clip")
    prints = {_encoder(folder).fingerprint(), _encoder(folder, projection=True).fingerprint()}
    _change_text(folder, num_attention_heads=4)
    prints.add(_encoder(folder).fingerprint())
    merges = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join(merges[:-3]) + "\n")
    prints.add(_encoder(folder).fingerprint())
    assert len(prints) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_library_stays_quiet(
    published: dict[str, Path], family: str, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = _encoder(published[family])
    encoder.tokenize(["a dog " * 90])
    assert "".join(capsys.readouterr()) == ""
    assert not caplog.records
