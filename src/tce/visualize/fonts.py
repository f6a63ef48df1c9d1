"""Letters in pictures: the fonts that have them, and an escape for those that no font has."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from tce.errors import printable

OWN = "DejaVu Sans"  # comes with Matplotlib; it has more letters than Pillow's own font
FALLBACKS = (  # of the fonts with other letters, those that systems have
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "SimHei",
    "NanumGothic",
    "IPAGothic",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Thai",
    "Nirmala UI",
    "Leelawadee UI",
    "FreeSans",
    "Unifont",
)


@lru_cache(maxsize=1)
def fonts() -> dict[str, Any]:
    """The fonts that text is drawn with, by family: Matplotlib's own first, then those of this system."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    here = {font.name for font in fontManager.ttflist}
    found = {OWN: FT2Font(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf")}
    for family in FALLBACKS:
        if family in here:
            with contextlib.suppress(OSError, RuntimeError):  # a font that cannot be read is none
                found[family] = FT2Font(fontManager.findfont(family))
    return found


def drawable(text: str, families: Collection[str] | None = None) -> str:
    r"""`text` with \u62f3 for each letter that none of the fonts has, which would be drawn as a box.

    Args:
        text: any text.
        families: the fonts that may draw it; all of `fonts` by default.
    """
    text = printable(unicodedata.normalize("NFC", text))
    if text.isascii():
        return text
    own = [font for family, font in fonts().items() if families is None or family in families]
    known = {char for char in text if any(font.get_char_index(ord(char)) for font in own)} | {"\n"}
    return "".join(
        char if char in known else char.encode("unicode_escape").decode("ascii")
        for char in text
        if char in known or unicodedata.category(char) not in ("Cf", "Mn")  # joins or varies a letter
    )


def set_fonts(figure: Any) -> None:
    """Let all text of a Matplotlib figure be drawn with the first of `fonts` that has the letter."""
    from matplotlib.text import Text

    if len(fonts()) > 1:
        for text in figure.findobj(Text):
            text.set_fontfamily(list(fonts()))


def text_and_font(text: str, size: int) -> tuple[str, Any]:
    """A line for Pillow, which draws it with one font: the line with escapes, and the font.

    Args:
        text: any line.
        size: of the font in pixels.
    """
    most = drawable(text)
    family = next((family for family in fonts() if drawable(text, [family]) == most), OWN)
    return drawable(text, [family]), _pillow_font(family, size)


@lru_cache
def _pillow_font(family: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(fonts()[family].fname, size)
