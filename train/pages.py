"""Drawn pages: windows of text, code, tables, plots and photographs, as on a screen.

For choosing how few images are trained on, where real screenshots are kept to measure on. Five
pages to train on; four in other fonts ("fonts"); four whose windows and backgrounds have other
colours as well ("colours").
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from train.data import image_files

SIZE = 1024, 832
WINDOWS = 5
BAR = 30
"""Height of the title of a window, in pixels."""

Colour = tuple[int, int, int]

PAPERS: dict[tuple[bool, bool], tuple[Colour, ...]] = {
    (False, False): ((255, 255, 255), (255, 255, 255), (250, 248, 240)),
    (False, True): ((30, 31, 36), (18, 18, 18), (40, 44, 52)),
    (True, False): ((253, 246, 227), (230, 240, 255), (255, 235, 225)),
    (True, True): ((0, 43, 54), (46, 52, 64), (12, 12, 60), (60, 20, 40)),
}
"""Whether colours are other ones, whether dark -> colours of windows."""

PLAIN: dict[tuple[bool, bool], Colour] = {
    (False, False): (244, 244, 246),
    (False, True): (28, 29, 33),
    (True, False): (0, 128, 128),
    (True, True): (0, 90, 160),
}
INKS = ((190, 60, 60), (40, 110, 200), (60, 150, 80), (200, 140, 40))
LETTERS = "etaoinshrdlucmfwygpbv"
"""From the most frequent one on."""

LIGHTS = ((255, 95, 86), (255, 189, 46), (39, 201, 63))


@dataclass(frozen=True)
class Look:
    """A page's font (a file of Matplotlib's), whether it is dark, and what lies behind."""

    font: str
    dark: bool
    behind: str
    other: bool = False


TRAINED = (
    Look("DejaVuSans", False, "photograph"),
    Look("DejaVuSansMono", True, "plain"),
    Look("DejaVuSerif", False, "gradient"),
    Look("STIXGeneral", True, "photograph"),
    Look("DejaVuSans-Oblique", False, "plain"),
)
FONTS = (
    Look("cmss10", True, "gradient"),
    Look("STIXGeneralBol", False, "photograph"),
    Look("DejaVuSansMono-Bold", True, "plain"),
    Look("STIXGeneralItalic", False, "plain"),
)
COLOURS = (
    Look("DejaVuSansMono", True, "plain", True),
    Look("STIXGeneral", True, "photograph", True),
    Look("cmss10", False, "plain", True),
    Look("DejaVuSans", False, "gradient", True),
)
SETS = {"train": TRAINED, "fonts": FONTS, "colours": COLOURS}


def draw(photographs: Path, out: Path) -> list[Path]:
    """Write the pages of SETS to folders of `out`; return their files.

    photographs: a folder of images, for windows and backgrounds. Pages depend on it alone, and on
    the fonts of Matplotlib. Raises ValueError where there are no images.
    """
    files = image_files([photographs])
    if not files:
        raise ValueError(f"no image in {photographs}; photographs are needed to draw pages with")
    written = []
    for name, looks in SETS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for number, look in enumerate(looks):
            path = out / name / f"{number}.png"
            _page(look, files, random.Random(f"{name} {number}")).save(path)
            written.append(path)
    return written


def _page(look: Look, photographs: Sequence[Path], chance: random.Random) -> Image.Image:
    page = _behind(look, photographs, chance)
    for _ in range(WINDOWS):
        width, height = chance.randint(260, 560), chance.randint(220, 460)
        left = chance.randint(-40, page.width - 220)
        top = chance.randint(0, page.height - 180)
        paper = chance.choice(PAPERS[look.other, look.dark])
        edge = _shade(paper, look.dark)
        box = (left, top, left + width, top + height)
        radius = chance.choice((0, 6, 12))
        pen = ImageDraw.Draw(page)
        shadow = _shade(PLAIN[look.other, look.dark], False)
        pen.rounded_rectangle((box[0] + 4, box[1] + 6, box[2] + 4, box[3] + 6), radius, shadow)
        pen.rounded_rectangle(box, radius, paper, edge)
        title = _any_colour(chance) if chance.random() < 0.4 else edge
        pen.rectangle((left + 1, top + 1, left + width - 1, top + BAR - 4), title)
        for i, light in enumerate(LIGHTS):
            pen.ellipse((left + 8 + 18 * i, top + 8, left + 19 + 18 * i, top + 19), light)
        inside = Image.new("RGB", (width - 16, height - BAR - 10), paper)
        paint = chance.choice((_text, _text, _code, _table, _plot, _photograph))
        paint(_Window(inside, look, paper, photographs, chance))
        page.paste(inside, (left + 8, top + BAR))
    return page


class _Window:
    """What is inside a window: an image to paint on, its colours, and the page's chance."""

    def __init__(
        self,
        image: Image.Image,
        look: Look,
        paper: Colour,
        photographs: Sequence[Path],
        chance: random.Random,
    ) -> None:
        self.image, self.paper, self.photographs, self.chance = image, paper, photographs, chance
        self.dark, self.pen = look.dark, ImageDraw.Draw(image)
        self.size = chance.choice((10, 12, 13, 14, 16, 20, 28))
        folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
        self.font = ImageFont.truetype(folder / f"{look.font}.ttf", self.size)
        grey = 235 - chance.randint(0, 50) if look.dark else 10 + chance.randint(0, 50)
        self.ink = (grey, grey, grey)

    def lines(self, spacing: float) -> Iterator[int]:
        """Yield where lines begin, from the top to the bottom."""
        return itertools.takewhile(
            lambda y: y < self.image.height - self.size,
            (2 + round(i * spacing * self.size) for i in itertools.count()),
        )

    def write(self, x: float, y: int, text: str, ink: Colour) -> float:
        """Write a text; return where it ends."""
        self.pen.text((x, y), text, font=self.font, fill=ink)
        return x + self.pen.textlength(text, font=self.font)


def _text(window: _Window) -> None:
    chance = window.chance
    for y in window.lines(1.45):
        ink = window.ink if chance.random() < 0.9 else chance.choice(INKS)
        x = 4.0
        while x < window.image.width * 0.85:
            x = window.write(x, y, _word(chance) + " ", ink)


def _code(window: _Window) -> None:
    chance, depth = window.chance, 0
    for y in window.lines(1.4):
        depth = max(0, min(4, depth + chance.choice((-1, 0, 0, 1))))
        x = 4.0 + depth * 2.4 * window.size
        for _ in range(chance.randint(0, 7)):
            ink = window.ink if chance.random() < 0.6 else chance.choice(INKS)
            x = window.write(x, y, _word(chance) + chance.choice((" ", "(", ") ", " = ")), ink)


def _table(window: _Window) -> None:
    columns, chance = window.chance.randint(3, 6), window.chance
    for y in window.lines(1.8):
        for column in range(columns):
            cell = f"{chance.random() * 1000:.2f}" if column else _word(chance)
            window.write(6 + column * window.image.width // columns, y, cell, window.ink)
        under = y + round(1.5 * window.size)
        window.pen.line((0, under, window.image.width, under), _shade(window.paper, window.dark))


def _plot(window: _Window) -> None:
    width, height = window.image.size
    paper, ink = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in (window.paper, window.ink))
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=paper)
    axes = figure.add_subplot(facecolor=paper)
    for _ in range(4):
        axes.plot(list(itertools.accumulate(window.chance.gauss(0, 1) for _ in range(80))))
    axes.tick_params(colors=ink)
    content = io.BytesIO()
    figure.savefig(content, format="png", facecolor=paper)
    window.image.paste(Image.open(content).convert("RGB"))


def _photograph(window: _Window) -> None:
    window.image.paste(_cut(window.photographs, window.image.size, window.chance))


def _behind(look: Look, photographs: Sequence[Path], chance: random.Random) -> Image.Image:
    if look.behind == "photograph":
        return _cut(photographs, SIZE, chance)
    if look.behind == "plain":
        return Image.new("RGB", SIZE, PLAIN[look.other, look.dark])
    corners = Image.new("RGB", (2, 2))
    first, last = _any_colour(chance), _any_colour(chance)
    middle = tuple((a + b) // 2 for a, b in zip(first, last, strict=True))
    for place, colour in {(0, 0): first, (1, 0): middle, (0, 1): middle, (1, 1): last}.items():
        corners.putpixel(place, colour)
    return corners.resize(SIZE, Image.Resampling.BILINEAR)


def _cut(files: Sequence[Path], size: tuple[int, int], chance: random.Random) -> Image.Image:
    """Return the middle of a photograph, made as large as `size`."""
    with Image.open(chance.choice(files)) as image:
        photograph = image.convert("RGB")
    scale = max(a / b for a, b in zip(size, photograph.size, strict=True))
    width, height = (max(a, round(b * scale)) for a, b in zip(size, photograph.size, strict=True))
    whole = photograph.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (whole.width - size[0]) // 2, (whole.height - size[1]) // 2
    return whole.crop((left, top, left + size[0], top + size[1]))


def _word(chance: random.Random) -> str:
    return "".join(chance.choices(LETTERS, range(len(LETTERS), 0, -1), k=chance.randint(2, 9)))


def _any_colour(chance: random.Random) -> Colour:
    return chance.randint(30, 230), chance.randint(30, 230), chance.randint(30, 230)


def _shade(colour: Colour, lighter: bool) -> Colour:
    red, green, blue = (min(255, c + 20) if lighter else max(0, c - 20) for c in colour)
    return red, green, blue
