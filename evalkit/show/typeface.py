"""The one typeface: its files, matplotlib's way to them, and the few letters that a figure or a page carries to its reader.

What is measured here is what the reader's device draws, whatever fonts stand on either machine: the files come with
two packages and are found by their path, and figures and page hold the letters they use. The names are ours, so that
no font installed under the fonts' own names can take their place.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Literal

FAMILY, SIGNS = "evalkit", "evalkit signs"
STACK = f"{FAMILY},'{SIGNS}','Segoe UI',-apple-system,Roboto,'Helvetica Neue',Arial,sans-serif"
"""For CSS: the typeface, then what the reader's device has for the letters of other scripts."""

Weight = Literal[400, 700]
_ARROWS_BOXES_MARKS = range(0x2190, 0x2800)
_ALL = range(0x20, 0x2800)
_READING = ("kern", "mark", "mkmk", "ccmp", "locl")
_NOTICES = (0, 13, 14)  # copyright, licence and its address
_UNUSED = ["BASE", "DSIG", "FFTM", "gasp"]


@cache
def font_files() -> Mapping[tuple[str, Weight], Path]:
    """Source Sans Pro, and for arrows, boxes and marks that it lacks the DejaVu Sans that matplotlib brings along."""
    import matplotlib

    ours = Path(str(files("font_source_sans_pro"))) / "files"
    signs = Path(matplotlib.get_data_path()) / "fonts/ttf"
    return {
        (FAMILY, 400): ours / "SourceSansPro-Regular.ttf",
        (FAMILY, 700): ours / "SourceSansPro-Bold.ttf",
        (SIGNS, 400): signs / "DejaVuSans.ttf",
        (SIGNS, 700): signs / "DejaVuSans-Bold.ttf",
    }


def tell_matplotlib() -> None:
    """Puts the files on matplotlib's list; again when it has read its list anew, as it does after a stale cache."""
    from matplotlib.font_manager import FontEntry, fontManager

    known = {font.name for font in fontManager.ttflist}
    fontManager.ttflist += [
        FontEntry(fname=str(path), name=family, weight=weight, size="scalable")
        for (family, weight), path in font_files().items()
        if family not in known
    ]


def css(letters: Mapping[Weight, str], *, reading: bool = False) -> str:
    """`@font-face` rules with the letters of a text as `data:` fonts; letters that the typeface lacks are left out.

    Args:
        letters: Text by weight.
        reading: For running text: kerning, placed accents, and the fonts' notices of copyright. Figures do without.
    """
    return "".join(
        f"@font-face{{font-family:'{family}';font-weight:{weight};src:url(data:font/woff;base64,{font})}}"
        for weight, text in letters.items()
        for family, codes in _shared_out(text, weight).items()
        if (font := _woff(family, weight, codes, reading))
    )


def _shared_out(text: str, weight: Weight) -> dict[str, frozenset[int]]:
    codes = {ord(one) for one in text + unicodedata.normalize("NFC", text)}  # as browsers compose
    ours = codes & _codes(FAMILY, weight)
    rest = (codes - ours).intersection(_ARROWS_BOXES_MARKS)
    signs = rest & _codes(SIGNS, weight) if rest else rest
    return {FAMILY: frozenset(ours), SIGNS: frozenset(signs)}


@lru_cache(maxsize=512)
def _woff(family: str, weight: Weight, codes: frozenset[int], reading: bool) -> str:
    if not codes:
        return ""
    source = font_files()[family, weight] if reading else BytesIO(_plain(family, weight))
    font = _cut(source, codes, features=_READING if reading else (), flavor="woff")
    return base64.b64encode(font).decode()


@cache
def _plain(family: str, weight: Weight) -> bytes:
    """A font without layout rules, made once: letters are cut from it in milliseconds."""
    return _cut(font_files()[family, weight], _ALL)


@cache
def _codes(family: str, weight: Weight) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(font_files()[family, weight], lazy=True) as font:
        return frozenset(font.getBestCmap() or ())


def _cut(
    source: Path | BytesIO,
    codes: Iterable[int],
    *,
    features: Iterable[str] = (),
    flavor: str | None = None,
) -> bytes:
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    options = Options()
    options.set(
        hinting=False,
        notdef_outline=True,
        layout_features=list(features),
        name_IDs=list(_NOTICES if features else ()),
        drop_tables=[
            *options.drop_tables,
            *_UNUSED,
            *([] if features else ["GDEF", "GPOS", "GSUB"]),
        ],
    )
    with TTFont(source, lazy=True) as font, BytesIO() as made:
        cutter = Subsetter(options)
        cutter.populate(unicodes=codes)
        cutter.subset(font)
        font.flavor = flavor
        font.save(made, reorderTables=False)
        return made.getvalue()
