"""Small directories laid out as checkpoints on the hub: a tower, and the tokenizer or preprocessing beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from mmlit.alignments.contrastive import Contrastive
from mmlit.alignments.cross_attention import CrossAttention
from mmlit.contracts import Alignment, Batch, ImageEncoder, Pairs, TextEncoder

WORDS = (
    *("a", "the", "on", "of", "and", "is", "runs", "sits", "dog", "cat", "horse", "red", "blue", "small", "large"),
    *("square", "circle", "left", "right", "dogs", "times"),
)
TEXTS = ["a dog", "The small red circle left of the blue square", "a horse sits"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PICTURES = {"image_size": 32, "patch_size": 8}
PROJECTED = 24
NUM_POSITIONS = {"clip": 77, "siglip": 64}
#: as the files of google/vit-base-patch16-224, facebook/dinov2-small, openai/clip-vit-base-patch32 and
#: google/siglip-base-patch16-224, but for the size
PREPROCESSING: dict[str, dict[str, Any]] = {
    "vit": {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTFeatureExtractor",
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 32, "width": 32},
    },
    "dinov2": {
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "BitImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 36},
    },
    "clip": {
        "crop_size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 32,
    },
    "siglip": {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 32, "width": 32},
    },
}
_WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"bcdefghijklmnopqrstuvwxyz"]
_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"


def publish(folder: Path, family: str) -> Path:
    """`family` into `folder`: vit, dinov2, clip, siglip, bert, minilm, distilbert, roberta or modernbert."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    _TOWERS[family](folder)
    _stir(folder)
    if family in PREPROCESSING:
        write(folder / "preprocessor_config.json", PREPROCESSING[family])
    return folder


def write(file: Path, content: Any) -> None:
    """As JSON."""
    file.write_text(json.dumps(content))


def change(file: Path, **entries: Any) -> None:
    """Other entries in a JSON file."""
    write(file, json.loads(file.read_text()) | entries)


def change_weights(folder: Path, entries: dict[str, torch.Tensor | None]) -> None:
    """Other tensors in a directory's weights; None takes one away."""
    weights = load_file(folder / "model.safetensors") | entries
    kept = {key: value for key, value in weights.items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def without_gradient(image_encoder: ImageEncoder, text_encoder: TextEncoder, *, tokens: bool) -> list[str]:
    """Trainable parameters of both encoders that a dual alignment, or one of tokens, leaves without gradient."""
    options: dict[str, Any] = {"image": image_encoder.spec, "text": text_encoder.spec, "dim": 8, "dropout": 0.0}
    options |= {"image_head": "linear", "text_head": "linear", "temperature": 0.07, "learn_temperature": True}
    attention: dict[str, Any] = {"token_dim": 8, "num_heads": 2, "sharpness": 4.0}
    plain: dict[str, Any] = {"label_smoothing": 0.0, "hardness": 0.0, "decoupled": False}
    alignment: Alignment = CrossAttention(**options, **attention) if tokens else Contrastive(**options, **plain)
    ids, mask = text_encoder.tokenize(TEXTS)
    size, count = image_encoder.spec.size, torch.arange(3)
    pixels = torch.randint(256, (3, 3, size, size), generator=torch.Generator().manual_seed(0)).byte()
    image, text = alignment.embed_image(image_encoder(pixels)), alignment.embed_text(text_encoder(ids, mask))
    batch = Batch(pixels, count, ids, mask, None, count, count)
    everything = {"all_image_id": count, "all_text_id": count, "all_text_image_id": count, "batch": batch}
    unused: dict[str, Any] = {"encode_image": None, "encode_text": None}
    pairs = Pairs(image, text, image, text, 0, 0, **everything, **unused)  # type: ignore[arg-type]
    torch.stack([term.mean() for term in alignment.losses(pairs).values()]).sum().backward()
    named = [*image_encoder.named_parameters(), *text_encoder.named_parameters()]
    return [name for name, parameter in named if parameter.requires_grad and parameter.grad is None]


def _stir(folder: Path) -> None:
    """Fresh weights are small, biases 0 and norms 1; in trained ones a part that is left out shows."""
    weights = load_file(folder / "model.safetensors")
    for key, value in weights.items():
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(sum(key.encode())))
        value.copy_(0.15 * value / value.std() if value.ndim > 1 and len(value) > 1 else value + 0.3 * noise)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _vit(folder: Path) -> None:
    transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, **PICTURES)).save_pretrained(folder)


def _dinov2(folder: Path) -> None:
    """Its own size is another than that of its preprocessing, as published."""
    sizes = SIZES | {"image_size": 48, "patch_size": 8}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(folder)


def _clip(folder: Path) -> None:
    """With the wrong widths of projection that early files have beside the right one."""
    size = _clip_tokenizer(folder)
    text = SIZES | {"hidden_size": 16, "vocab_size": size, "max_position_embeddings": 77, "pad_token_id": 1}
    text |= {"bos_token_id": 0, "eos_token_id": 2, "projection_dim": 512}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=SIZES | PICTURES | {"projection_dim": 512}, projection_dim=PROJECTED
    )
    transformers.CLIPModel(config).save_pretrained(folder)


def _siglip(folder: Path) -> None:
    size = _siglip_tokenizer(folder)
    text = SIZES | {"vocab_size": size, "max_position_embeddings": 64}
    config = transformers.SiglipConfig(text_config=text, vision_config=SIZES | PICTURES)
    transformers.SiglipModel(config).save_pretrained(folder)


def _bert(folder: Path) -> None:
    _word_pieces(folder, "BertTokenizer")
    config = transformers.BertConfig(vocab_size=len(_WORD_PIECES), max_position_embeddings=64, **SIZES)
    transformers.BertForPreTraining(config).save_pretrained(folder)


def _minilm(folder: Path) -> None:
    """As a sentence encoder: the bare tower, and files of another library."""
    _word_pieces(folder, "BertTokenizer")
    config = transformers.BertConfig(vocab_size=len(_WORD_PIECES), max_position_embeddings=64, **SIZES)
    transformers.BertModel(config).save_pretrained(folder)
    write(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.X"}])


def _distilbert(folder: Path) -> None:
    _word_pieces(folder, "DistilBertTokenizer")
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64}
    config = transformers.DistilBertConfig(vocab_size=len(_WORD_PIECES), **sizes)
    transformers.DistilBertForMaskedLM(config).save_pretrained(folder)


def _roberta(folder: Path) -> None:
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, vocab_size=330, special_tokens=special)
    tokenizer.save_model(str(folder))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "model_max_length": 64})
    size = tokenizer.get_vocab_size()
    config = transformers.RobertaConfig(vocab_size=size, max_position_embeddings=66, type_vocab_size=1, **SIZES)
    transformers.RobertaForMaskedLM(config).save_pretrained(folder)


def _modernbert(folder: Path) -> None:
    """Every second layer sees four tokens to each side."""
    pieces: dict[str, Any] = {"vocab": {piece: i for i, piece in enumerate(_WORD_PIECES)}, "unk_token": "[UNK]"}
    tokenizer = Tokenizer(models.WordPiece(**pieces))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names |= {"mask_token": "[MASK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    inputs = ["input_ids", "attention_mask"]
    change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", model_input_names=inputs)
    special = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    config = transformers.ModernBertConfig(
        vocab_size=len(_WORD_PIECES), local_attention=8, global_attn_every_n_layers=2, **special, **SIZES
    )
    transformers.ModernBertForMaskedLM(config).save_pretrained(folder)


_TOWERS: dict[str, Callable[[Path], None]] = {
    "vit": _vit,
    "dinov2": _dinov2,
    "clip": _clip,
    "siglip": _siglip,
    "bert": _bert,
    "minilm": _minilm,
    "distilbert": _distilbert,
    "roberta": _roberta,
    "modernbert": _modernbert,
}


def _word_pieces(folder: Path, kind: str) -> None:
    (folder / "vocab.txt").write_text("\n".join(_WORD_PIECES) + "\n")
    write(folder / "tokenizer_config.json", {"tokenizer_class": kind, "do_lower_case": True, "model_max_length": 512})


def _clip_tokenizer(folder: Path) -> int:
    """Every byte alone and at a word's end, then each word letter by letter; gives the number of ids."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in WORDS:
        for end in range(1, len(word)):
            right = word[end] + ("</w>" if end == len(word) - 1 else "")
            if word[:end] + right not in tokens:
                tokens.append(word[:end] + right)
                merges.append(f"{word[:end]} {right}")
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    write(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>", "model_max_length": 77}
    write(folder / "tokenizer_config.json", settings | ends)
    return len(tokens)


def _siglip_tokenizer(folder: Path) -> int:
    """The fast form: no capitals, no punctuation; no attention mask unless asked."""
    words = [(f"▁{word}", -2 - i / 10) for i, word in enumerate(WORDS)]
    letters = [(letter, -9.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    vocabulary = [("<unk>", 0.0), ("</s>", 0.0), *words, *letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(_PUNCTUATION), ""), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_input_names": ["input_ids"]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    write(folder / "tokenizer_config.json", settings | ends)
    return len(vocabulary)
