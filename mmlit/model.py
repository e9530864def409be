"""A trained pair of towers with its alignment, for notebooks and other programs: what `mmlit.load` gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmlit.configuration.binding import SPECIAL, locate, problems
from mmlit.configuration.stored import stored_config
from mmlit.contracts import Alignment, Encoded, ImageEncoder, TextEncoder
from mmlit.data.decode import decode, prepare
from mmlit.training.checkpoints import load_weights, read_checkpoint

Picture = str | Path | bytes | Image.Image


class Model(nn.Module):
    """Two towers and an alignment.

    Args:
        image_encoder: pixels → `Encoded`.
        text_encoder: texts → `Encoded`.
        alignment: built for these two.
    """

    def __init__(self, *, image_encoder: ImageEncoder, text_encoder: TextEncoder, alignment: Alignment) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder, self.alignment = image_encoder, text_encoder, alignment
        image_encoder.needs_tokens = text_encoder.needs_tokens = alignment.needs_tokens

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Picture], *, batch_size: int = 64) -> Encoded:
        """Files (path, or the undecoded bytes) or PIL pictures → N embedded images, prepared as in training.

        Raises:
            FileNotFoundError: if a path names nothing.
            ValueError: if a file is no readable picture, or something else than a list of pictures is given.
        """
        parts = []
        for chunk in _chunks(images, batch_size, "images"):
            pixels = torch.stack([self._pixels(image) for image in chunk])
            parts.append(self.alignment.embed_image(self.image_encoder(pixels.to(self._device))))
        return _joined(parts)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> Encoded:
        """M texts → M embedded texts, what is longer than the encoder's `max_length` cut.

        Raises:
            ValueError: if nothing is given, or something else than a list of strings.
        """
        parts = []
        for chunk in _chunks(texts, batch_size, "texts"):
            if strange := [text for text in chunk if not isinstance(text, str)]:
                raise ValueError(f"a text must be a string, got {strange[0]!r}")
            ids, mask = self.text_encoder.tokenize(chunk)
            parts.append(self.alignment.embed_text(self.text_encoder(ids.to(self._device), mask.to(self._device))))
        return _joined(parts)

    @torch.inference_mode()
    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """What `encode_images` and `encode_texts` gave → (N,M), higher = closer; see the alignment's own `score`.

        Raises:
            ValueError: if one of the two is anything else.
        """
        for name, side in (("image", image), ("text", text)):
            if not isinstance(side, Encoded):
                raise ValueError(f"{name} must be what encode_{name}s gave, got {type(side).__name__}")
        return self.alignment.score(image, text)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _pixels(self, image: Picture) -> Tensor:
        if isinstance(image, Image.Image):
            return prepare(image, self.image_encoder.spec)
        if not isinstance(image, str | Path | bytes):
            raise ValueError(
                "an image must be a path, a file's bytes or a PIL picture (PIL.Image.fromarray makes one of an array), "
                f"got {type(image).__name__}"
            )
        file = image if isinstance(image, bytes) else Path(image).expanduser().read_bytes()
        try:
            return decode(file, self.image_encoder.spec, exact=True)
        except ValueError as error:
            name = "an image" if isinstance(image, bytes) else image
            raise ValueError(f"{name}: not a readable picture: {error}") from error


def load(path: str | Path, *, device: str | torch.device = "cpu") -> Model:
    """The trained model of a run's folder or of a checkpoint file, in evaluation mode.

    Only weights and plain containers are read from it, and only classes that `conf/` names are built.

    Args:
        path: a run's folder (its one checkpoint is taken), or a checkpoint.
        device: where to put it.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the folder holds several, the file is damaged, of another version, or names foreign classes.
    """
    file = checkpoint_of(Path(path).expanduser())
    stored = read_checkpoint(file)
    config = stored_config(stored, path=file)
    names = {"image_encoder", "text_encoder", "alignment", "towers"}
    parts = {name: node for name, node in config.items() if name in names}
    if wrong := problems(parts):
        raise ValueError(f"checkpoint={file}: {'; '.join(wrong)}")
    image_encoder, text_encoder = _make(parts["image_encoder"]), _make(parts["text_encoder"])
    alignment = _make(parts["alignment"], image=image_encoder.spec, text=text_encoder.spec)
    for _, node in sorted(parts.get("towers", {}).items()):
        _make(node).apply(image_encoder, text_encoder)
    model = Model(image_encoder=image_encoder, text_encoder=text_encoder, alignment=alignment)
    load_weights(model, stored, path=file)
    return model.to(device).eval()


def checkpoint_of(path: Path) -> Path:
    """The one checkpoint of a run's folder, or the file itself.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the folder holds several.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run or checkpoint")
    if not path.is_dir():
        return path
    found = sorted((path / "checkpoints").glob("*.ckpt"))
    if not found:
        raise FileNotFoundError(f"{path} is no folder of a finished run: no checkpoint in {path / 'checkpoints'}")
    if len(found) > 1:
        raise ValueError(f"{path} holds several checkpoints ({', '.join(file.name for file in found)}): name one")
    return found[0]


def _make(node: Mapping[str, Any], **runtime: Any) -> Any:
    options = {key: value for key, value in node.items() if key not in SPECIAL}
    return locate(node["_target_"])(**options, **runtime)


def _chunks(items: Sequence[Any], size: int, what: str) -> list[Sequence[Any]]:
    if not isinstance(items, Sequence) or isinstance(items, str | bytes) or len(items) == 0:
        found = "an empty one" if isinstance(items, list | tuple) else type(items).__name__
        raise ValueError(f"{what} must be a list with something in it, got {found}")
    if size < 1:
        raise ValueError(f"batch_size must be >= 1, got {size}")
    return [items[start : start + size] for start in range(0, len(items), size)]


def _joined(parts: list[Encoded]) -> Encoded:
    """Batches one after the other, tokens padded to the longest."""
    longest = max(part.tokens.shape[1] for part in parts)
    padded = []
    for part in parts:
        gap = longest - part.tokens.shape[1]
        padded.append(Encoded(F.pad(part.tokens, (0, 0, 0, gap)), part.pooled, F.pad(part.mask, (0, gap))))
    return Encoded(*(torch.cat(column) for column in zip(*padded, strict=True)))
