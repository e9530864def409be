"""Directories of CLIP and SigLIP: only their text half is kept, the tokenizer is its own, refused where it is not."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers
from layers.published import PROJECTED, TEXTS, WORDS, change, change_weights, write
from safetensors.torch import load_file
from text_encoders.towers import PAIRS, change_text, pair_tower
from torch import Tensor
from transformers import AutoTokenizer


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
    encoder = pair_tower(folder, max_length=6)
    texts = ["A dog, runs!", "a dog runs", "the small red dog runs on the left of the circle"]
    ids, mask = encoder.tokenize(texts)
    whole = AutoTokenizer.from_pretrained(folder)(texts, verbose=False)["input_ids"]
    assert ids[0].tolist() == ids[1].tolist()
    assert whole[0] == whole[1] == ids[0][mask[0]].tolist()
    assert len(whole[2]) > 6
    assert ids[2].tolist() == [*whole[2][:5], 1]
    assert encoder.num_truncated == 1
    before = encoder.fingerprint()
    assert pair_tower(folder, max_length=6).fingerprint() == before
    change(folder / "tokenizer_config.json", do_lower_case=False)
    assert pair_tower(folder, max_length=6).fingerprint() != before


@pytest.mark.parametrize("family", PAIRS)
def test_only_this_half_is_kept(published: dict[str, Path], copy: Callable[[str], Path], family: str) -> None:
    """As many parameters as the text side has; what the file holds of the other is not even looked at."""
    folder = copy(family)
    other = {key: None for key in load_file(folder / "model.safetensors") if key.startswith("vis")}
    change_weights(folder, {**other, "logit_scale": None})
    whole = load_file(published[family] / "model.safetensors")
    own = sum(value.numel() for key, value in whole.items() if key.startswith("text_model."))
    for name in (folder, published[family]):
        encoder = pair_tower(name)
        assert sum(parameter.numel() for parameter in encoder.parameters()) == own
        assert not [key for key in encoder.state_dict() if "vis" in key or "logit" in key]
    assert pair_tower(folder).fingerprint() == pair_tower(published[family]).fingerprint()


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
    change_weights(folder, change)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    for weights in ("pretrained", str(folder / "other.safetensors")):
        with pytest.raises(ValueError, match=rf"does not fit the model, keys: {message}"):
            pair_tower(folder, weights=weights)


@torch.no_grad()
@pytest.mark.parametrize("family", PAIRS)
def test_directories_of_the_text_side_alone(copy: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    """With tokens in half precision; without a projection none is made up."""
    folder = copy(family)
    whole = pair_tower(folder)
    expected = whole(*whole.tokenize(TEXTS))
    kind = "CLIP" if family == "clip" else "Siglip"
    model = getattr(transformers, f"{kind}TextModel").from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.half().save_pretrained(folder)
    encoder = pair_tower(folder)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    torch.testing.assert_close(encoder(*encoder.tokenize(TEXTS)).pooled, expected.pooled, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match=rf"projection=true: name={folder} is a {family}_text_model model without"):
        pair_tower(folder, projection=True)


@torch.no_grad()
def test_text_side_with_its_projection(published: dict[str, Path], copy: Callable[[str], Path]) -> None:
    text = transformers.CLIPConfig.from_pretrained(published["clip"]).text_config
    text.projection_dim = PROJECTED
    folder = copy("clip")
    model = transformers.CLIPTextModelWithProjection.from_pretrained(published["clip"], config=text)
    model.save_pretrained(folder)
    for projection in (True, False):
        pair = pair_tower(folder, projection=projection), pair_tower(published["clip"], projection=projection)
        one, other = (encoder(*encoder.tokenize(TEXTS)) for encoder in pair)
        assert torch.equal(one.pooled, other.pooled)


def test_siglip_has_no_projection(published: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=rf"projection=true: name={published['siglip']} is a siglip model without"):
        pair_tower(published["siglip"], projection=True)


@pytest.mark.parametrize("family", PAIRS)
def test_word_pieces_beside_the_tower(copy: Callable[[str], Path], tiny_bert: str, family: str) -> None:
    """Trap 24: BERT's ids are all rows of the table, and all of them mean something else."""
    folder = copy(family)
    for file in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny_bert) / file, folder)
    with pytest.raises(ValueError, match=rf"name={folder}: the tokenizer ends a text with id None, the tower expects"):
        pair_tower(folder)


def test_tokenizer_of_another_clip(copy: Callable[[str], Path]) -> None:
    """Trap 24: another id for the end of a text, or ids beyond the table."""
    folder = copy("clip")
    change_text(folder, eos_token_id=569)
    with pytest.raises(ValueError, match="the tokenizer ends a text with id 570, the tower expects 569"):
        pair_tower(folder)
    change_text(folder, vocab_size=570)
    with pytest.raises(ValueError, match="the tokenizer has ids up to 570, the tower's embedding has 570 rows"):
        pair_tower(folder, weights=None)


def test_models_that_are_no_pair(tiny_bert: str, published: dict[str, Path], copy: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=rf"name={tiny_bert} is a bert model: not CLIP or SigLIP with a text tower"):
        pair_tower(tiny_bert)
    folder = copy("clip")
    change(folder / "config.json", model_type="clip_vision_model")
    with pytest.raises(ValueError, match="is a clip_vision_model model: not CLIP or SigLIP with a text tower"):
        pair_tower(folder)
    with pytest.raises(ValueError, match="name=no/such is neither a directory nor obtainable"):
        pair_tower("no/such")


def test_random_weights_and_weights_of_a_file(published: dict[str, Path], tmp_path: Path) -> None:
    """The file may be the whole pair's."""
    folder, file = published["clip"], tmp_path / "weights.pt"
    torch.save(load_file(folder / "model.safetensors"), file)
    expected = pair_tower(folder, projection=True).fingerprint()
    assert pair_tower(folder, projection=True, weights=str(file)).fingerprint() == expected
    assert pair_tower(folder, projection=True, weights=None).fingerprint() != expected
