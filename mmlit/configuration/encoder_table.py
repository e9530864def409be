"""docs/encoders.md, written from the yaml files: `make docs`."""

import sys
from pathlib import Path
from typing import Any

import yaml

from mmlit.configuration.axes import first_comment
from mmlit.configuration.stored import CONF

_HEAD = """# Encoders

Written by `make docs` from the first lines of the yaml files; a test keeps it so.

Every image encoder goes with every text encoder and every alignment. `AXIS=CHOICE` takes one; its options can be given
by name, e.g. `image_encoder=resnet50 image_encoder.name=resnet101`: one class serves all models of its library.
`freeze=false` fine-tunes. Pictures are resized, cropped and normalized as the weights demand; a size, statistics or a
tokenizer that do not belong to them are refused, as far as the files tell: a bare state dict says nothing of its
statistics, and two tokenizers of nearly equal size and equal special tokens look alike. Code that lies beside
weights is never run.
"""
_CLASSES = {
    "TinyImageEncoder": "from scratch, for the rendered scenes",
    "TinyTextEncoder": "from scratch, for the rendered scenes",
    "TorchvisionEncoder": "any classification model of torchvision by `name`; `weights` by their name there, or a file",
    "TimmEncoder": "any model of timm by `name` (`pip install -e '.[timm]'`; `make setup` has it)",
    "HuggingFaceImageEncoder": "ViT, DINOv2, BEiT, Swin, ConvNeXt, ResNet, CLIP or SigLIP by hub name or directory; "
    "`projection=true` keeps CLIP's own projection into the space that its halves share",
    "HuggingFaceTextEncoder": "any encoder-only text model by hub name or directory; `pooling` is `cls` or `mean`",
    "PairTextEncoder": "text half of CLIP or SigLIP by hub name or directory; `projection` as on the picture side",
}


def encoder_table(conf: Path) -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for axis, title in (("image_encoder", "Image encoders"), ("text_encoder", "Text encoders")):
        files = sorted((conf / axis).glob("*.yaml"))
        parts.append(f"\n## {title}\n\n| `{axis}=` | what it is | `name` | class |\n| --- | --- | --- | --- |\n")
        nodes = {file.stem: yaml.safe_load(file.read_text()) for file in files}
        parts += [_row(file.stem, first_comment(file.read_text()), nodes[file.stem]) for file in files]
        classes = sorted({_class(node) for node in nodes.values()})
        parts.append("\n" + "".join(f"- `{name}`: {_CLASSES[name]}.\n" for name in classes if name in _CLASSES))
    return "".join(parts)


def _class(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _row(choice: str, about: str, node: dict[str, Any]) -> str:
    name = f"`{node['name']}`" if "name" in node else ""
    return f"| `{choice}` | {about.rstrip('.')} | {name} | `{_class(node)}` |\n"


if __name__ == "__main__":
    sys.stdout.write(encoder_table(CONF))
