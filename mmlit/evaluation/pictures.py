"""Files that probes read: what is missing or wrong is refused, naming file and item, before anything is encoded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


def read_json(option: str, file: Path, *, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """What a JSON file holds; `option` is how the configuration names it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON in UTF-8.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{option}={file} not found")
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_hook=object_hook)
    except ValueError as error:
        raise ValueError(f"{option}={file}: broken JSON: {error}") from None


def text_in(where: str, entry: Any, key: str) -> str:
    """The text that `entry` has for `key`; `where` names file and item.

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {type(entry).__name__}, not an object")
    if not isinstance(text := entry.get(key), str) or not text.strip():
        raise ValueError(f"{where} has no {key}, got {text!r}")
    return text


class PictureFolder:
    """A folder of pictures, each looked at once: its header, not its pixels.

    Args:
        option: how the configuration names the folder.
        folder: where it is.

    Raises:
        FileNotFoundError: if there is no such folder.
    """

    def __init__(self, *, option: str, folder: str) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{option}={folder} is no folder")
        self._sizes: dict[str, tuple[int, int]] = {}

    def path(self, where: str, name: str) -> Path:
        """The picture `name`, which `where`, a file and an item, asks for.

        Raises:
            FileNotFoundError: if it is missing.
            ValueError: if it is no picture.
        """
        if name not in self._sizes:
            self._sizes[name] = picture_size(where, self.folder / name)
        return self.folder / name

    def size(self, name: str) -> tuple[int, int]:
        """Width and height in px of a picture that `path` has found, as it is stored."""
        return self._sizes[name]


def picture_size(where: str, path: Path) -> tuple[int, int]:
    """Width and height in px of a picture, read off its header.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is no picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{where}: picture {path} not found")
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where}: {path} is not a readable picture: {error}") from error
