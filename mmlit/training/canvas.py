"""Drawing of pages with pictures and words: fonts, wrapped lines, framed thumbnails."""

import io
from functools import cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

INK, FAINT, LINE, PAPER = "#1f2328", "#656d76", "#c9d1d9", "#ffffff"
RIGHT, RIGHT_PAPER = "#1a7f37", "#e6f6ea"
#: a picture smaller than this is enlarged without smoothing: its pixels are what the encoder sees
_SMALL = 64

Weight = Literal["regular", "bold"]


@cache
def font(size: int, weight: Weight = "regular") -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Latin, Greek, Cyrillic and more."""
    import matplotlib

    name = {"regular": "DejaVuSans", "bold": "DejaVuSans-Bold"}[weight]
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf", size)


def wrapped(text: str, kind: ImageFont.FreeTypeFont, width: float, most: int) -> list[str]:
    """At most `most` lines of at most `width` px; what does not fit ends in "…"."""
    lines, words = [""], text.split()
    for place, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if kind.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) < most:
            lines = [*lines, word] if lines[-1] else [word]
        else:
            return [*lines[:-1], shortened(" ".join([lines[-1], *words[place:]]), kind, width)]
    return [shortened(line, kind, width) for line in lines]


def shortened(text: str, kind: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, or as much of its beginning as fits, and "…"."""
    if kind.getlength(text) <= width:
        return text
    while text and kind.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def thumbnail(file: bytes, side: int) -> Image.Image:
    """A picture file, whole, in the middle of a square of `side` px."""
    with Image.open(io.BytesIO(file)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    return fitted(picture, side)


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """A picture, whole, in the middle of a square of `side` px."""
    small = max(picture.size) < _SMALL
    return ImageOps.pad(
        picture, (side, side), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS, color="#f0f2f4"
    )


class Page:
    """A white page that grows downwards.

    Args:
        width: px.
        title: its first line.
        about: a line below it.
    """

    MARGIN = 20

    def __init__(self, *, width: int, title: str, about: str) -> None:
        self.image = Image.new("RGB", (width, 4000), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.below = self.MARGIN
        self.text((self.MARGIN, self.below), title, size=20, weight="bold")
        self.text((self.MARGIN, self.below + 30), about, size=13, colour=FAINT)
        self.below += 62

    def text(
        self, at: tuple[float, float], words: str, *, size: int = 15, weight: Weight = "regular", colour: str = INK
    ) -> None:
        """A line, its top left at `at`, cut at the page's edge."""
        kind = font(size, weight)
        self.draw.text(at, shortened(words, kind, self.image.width - self.MARGIN - at[0]), fill=colour, font=kind)

    def picture(self, at: tuple[int, int], picture: Image.Image, *, right: bool | None = None) -> None:
        """A picture with a frame around it: green if it is right, grey if not, none if that is not asked."""
        x, y = at
        self.image.paste(picture, at)
        if right is not None:
            gap = 6 if right else 2
            box = (x - gap, y - gap, x + picture.width + gap - 1, y + picture.height + gap - 1)
            self.draw.rectangle(box, outline=RIGHT if right else LINE, width=5 if right else 1)

    def rule(self) -> None:
        """A line across, between two queries."""
        self.draw.line((self.MARGIN, self.below, self.image.width - self.MARGIN, self.below), fill=LINE)

    def finished(self) -> Image.Image:
        """The page, cut where it ends."""
        return self.image.crop((0, 0, self.image.width, self.below))
