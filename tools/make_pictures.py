"""Paint the demo's pictures into tools/demo/pictures: landscapes and patterns from a few formulas and fixed seeds.

The pictures vary like a real collection: wide, tall and square, JPEG and PNG, transparent, grey, and rotated by a
camera's orientation tag. `python -m tools.make_pictures` paints all of them again and always gives the same result.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageOps

FOLDER = Path(__file__).parent / "demo" / "pictures"

Painter = Callable[[tuple[int, int], Random], Image.Image]
Point = tuple[float, float]

_ORIENTATION_TAG = 0x0112
_TURNED_LEFT = 6
# Pictures are painted at twice the size and then reduced, which smooths the edges.
_OVERSAMPLING = 2


def main() -> None:
    """Paint every picture and print the total size."""
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, size, painter) in enumerate(PICTURES):
        large = painter((size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), Random(seed))  # noqa: S311 - paint, no secret
        _save(_resized(large, size), FOLDER / name)
    total = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{len(PICTURES)} pictures in {FOLDER}, {total / 1024:.0f} KiB")


def _save(picture: Image.Image, path: Path) -> None:
    if path.suffix == ".png":
        colours = picture.quantize(128, Image.Quantize.FASTOCTREE)
        colours.save(path, optimize=True)
    elif path.stem.startswith("turned"):
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = _TURNED_LEFT
        picture.transpose(Image.Transpose.ROTATE_90).save(path, quality=82, optimize=True, exif=exif)
    else:
        picture.save(path, quality=82, optimize=True)


def _blend(colours: Sequence[str], share: float) -> tuple[int, int, int]:
    """Return the colour between the first (share 0) and the last (share 1)."""
    place = share * (len(colours) - 1)
    below = min(int(place), len(colours) - 2)
    first, second = ImageColor.getrgb(colours[below]), ImageColor.getrgb(colours[below + 1])
    red, green, blue = (round(a + (b - a) * (place - below)) for a, b in zip(first[:3], second[:3], strict=True))
    return red, green, blue


def _gradient(size: tuple[int, int], colours: Sequence[str]) -> Image.Image:
    """Return a picture that blends the colours from top to bottom."""
    width, height = size
    column = Image.new("RGB", (1, height))
    for y in range(height):
        column.putpixel((0, y), _blend(colours, y / (height - 1)))
    return _resized(column, (width, height))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, Image.Resampling.LANCZOS)  # pyright: ignore[reportUnknownMemberType] - numpy's types


def _ridge(width: int, level: float, swing: float, random: Random) -> list[Point]:
    """Return a mountain ridge from left to right, made by repeated midpoint displacement."""
    heights = [level + random.uniform(-swing, swing), level + random.uniform(-swing, swing)]
    while len(heights) < width / 6:
        swing *= 0.55
        finer: list[float] = []
        for left, right in pairwise(heights):
            finer += [left, (left + right) / 2 + random.uniform(-swing, swing)]
        heights = [*finer, heights[-1]]
    step = width / (len(heights) - 1)
    return [(index * step, height) for index, height in enumerate(heights)]


def _glow(picture: Image.Image, centre: Point, radius: float, colour: str) -> Image.Image:
    """Add a disc with a soft glow."""
    light = Image.new("L", picture.size)
    draw = ImageDraw.Draw(light)
    draw.circle(centre, radius * 1.8, fill=110)
    light = light.filter(ImageFilter.GaussianBlur(radius * 0.7))
    ImageDraw.Draw(light).circle(centre, radius, fill=255)
    return Image.composite(Image.new("RGB", picture.size, colour), picture, light)


def mountains(sky: Sequence[str], far: str, near: str, light: str) -> Painter:
    """Rows of mountain ridges under a sun or moon."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        width, height = size
        centre = (width * random.uniform(0.2, 0.8), height * random.uniform(0.22, 0.4))
        picture = _glow(_gradient(size, sky), centre, min(size) * 0.07, light)
        draw = ImageDraw.Draw(picture)
        layers = 5
        for layer in range(layers):
            level = height * (0.5 + 0.1 * layer)
            ridge = _ridge(width, level, height * (0.13 - 0.015 * layer), random)
            draw.polygon([(0, height), *ridge, (width, height)], fill=_blend((far, near), layer / (layers - 1)))
        return picture

    return paint


def sea(size: tuple[int, int], random: Random) -> Image.Image:
    """A low sun over water, with its reflection."""
    width, height = size
    horizon = height * 0.55
    picture = _gradient(size, ("#2b1b4d", "#b03a6b", "#ff9a56", "#ffd98a"))
    picture = _glow(picture, (width / 2, horizon - height * 0.06), min(size) * 0.1, "#fff3c9")
    picture.paste(_gradient((width, height - int(horizon)), ("#c8617a", "#3a2a63", "#160f33")), (0, int(horizon)))
    draw = ImageDraw.Draw(picture)
    for _ in range(420):
        depth = random.random() ** 1.5
        y = horizon + depth * (height - horizon)
        reach = width * (0.04 + 0.2 * depth)
        x = random.gauss(width / 2, reach * 0.7)
        length = width * (0.01 + 0.05 * depth) * random.random()
        draw.line([(x - length, y), (x + length, y)], fill="#ffd9a0", width=1 + round(depth * height / 250))
    return picture


def dunes(size: tuple[int, int], random: Random) -> Image.Image:
    """Soft waves of sand, darker towards the viewer."""
    width, height = size
    picture = _glow(_gradient(size, ("#7fc4dd", "#fbe6c2")), (width * 0.75, height * 0.2), min(size) * 0.06, "#fffbe8")
    draw = ImageDraw.Draw(picture)
    for layer in range(7):
        phase, stretch = random.uniform(0, 6), random.uniform(0.7, 1.6)
        level, swing = height * (0.4 + 0.09 * layer), height * 0.05
        wave = [
            (
                x,
                level
                + swing * math.sin(phase + stretch * 5 * x / width)
                + swing * math.sin(2 * phase + 9 * x / width) / 3,
            )
            for x in range(0, width + 8, 8)
        ]
        draw.polygon([(0, height), *wave, (width, height)], fill=_blend(("#f0c27b", "#8a4b2a"), layer / 6))
    return picture


def night(size: tuple[int, int], random: Random) -> Image.Image:
    """Stars above a forest."""
    width, height = size
    picture = _glow(
        _gradient(size, ("#050a1e", "#12305c", "#3e6d8f")), (width * 0.7, height * 0.2), height * 0.05, "#f4f1de"
    )
    draw = ImageDraw.Draw(picture)
    for _ in range(350):
        radius = height / 500 * random.uniform(0.4, 1.8)
        draw.circle((random.uniform(0, width), height * random.random() ** 1.4), radius, fill="#e9f1ff")
    for layer in range(3):
        x = 0.0
        while x < width:
            tall = height * random.uniform(0.1, 0.22) * (0.7 + 0.3 * layer)
            foot = height * (0.86 + 0.07 * layer)
            colour = _blend(("#16324a", "#040a10"), layer / 2)
            draw.rectangle([x - tall, foot, x + tall, height], fill=colour)
            for part in range(3):
                top = foot - tall * (1 - 0.25 * part)
                half = tall * (0.14 + 0.07 * part)
                draw.polygon([(x, top), (x - half, top + tall * 0.45), (x + half, top + tall * 0.45)], fill=colour)
            x += tall * random.uniform(0.25, 0.5)
    return picture


def sunflower(ground: str, inner: str, outer: str) -> Painter:
    """Seeds arranged as in a sunflower, each turned by the golden angle."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        picture = Image.new("RGB", size, ground)
        draw = ImageDraw.Draw(picture)
        count, turn = 700, random.uniform(0, math.tau)
        reach = math.hypot(*size) * 0.5
        for seed in range(count):
            share = math.sqrt(seed / count)
            angle = turn + seed * math.pi * (3 - math.sqrt(5))
            centre = (size[0] / 2 + reach * share * math.cos(angle), size[1] / 2 + reach * share * math.sin(angle))
            draw.circle(centre, reach * (0.006 + 0.017 * share), fill=_blend((inner, outer), share))
        return picture

    return paint


def tiles(colours: Sequence[str]) -> Painter:
    """Truchet tiles: randomly turned quarter circles that join into paths."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        picture = Image.new("RGB", size, colours[0])
        draw = ImageDraw.Draw(picture)
        side = min(size) / 7
        for row in range(math.ceil(size[1] / side)):
            for column in range(math.ceil(size[0] / side)):
                x, y = column * side, row * side
                corners = ((x, y), (x + side, y + side)) if random.getrandbits(1) else ((x + side, y), (x, y + side))
                for corner in corners:
                    box = (corner[0] - side, corner[1] - side, corner[0] + side, corner[1] + side)
                    for ring, share in enumerate((0.72, 0.28)):
                        inset = side * (1 - share)
                        shape = (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
                        _arc_inside(draw, shape, corner, (x, y, side), colours[1 + ring])
        return picture

    return paint


def _arc_inside(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    corner: Point,
    tile: tuple[float, float, float],
    colour: str,
) -> None:
    """Draw the quarter circle around a corner of a tile that lies inside the tile."""
    x, y, side = tile
    towards_right, towards_bottom = corner[0] < x + side / 2, corner[1] < y + side / 2
    start = {(True, True): 0, (False, True): 90, (False, False): 180, (True, False): 270}[towards_right, towards_bottom]
    draw.arc(box, start, start + 90, fill=colour, width=round(side / 6))


def bubbles(ground: Sequence[str], colours: Sequence[str]) -> Painter:
    """Circles that do not overlap."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        picture = _gradient(size, ground)
        draw = ImageDraw.Draw(picture)
        placed: list[tuple[float, float, float]] = []
        for _ in range(2500):
            x, y = random.uniform(0, size[0]), random.uniform(0, size[1])
            room = min((math.hypot(x - a, y - b) - r for a, b, r in placed), default=min(size) / 6)
            radius = min(room - 2, min(size) / 6)
            if radius > min(size) / 90:
                placed.append((x, y, radius))
                draw.circle((x, y), radius, fill=random.choice(colours))
                draw.circle((x - radius * 0.3, y - radius * 0.3), radius * 0.25, fill="#ffffff")
        return picture

    return paint


def neoplastic(size: tuple[int, int], random: Random) -> Image.Image:
    """Rectangles in primary colours between black bars."""
    picture = Image.new("RGB", size, "#111111")
    draw = ImageDraw.Draw(picture)
    colours = ("#f6f3ea",) * 5 + ("#d7261e", "#1f4e9e", "#f4c20d")
    bar = min(size) / 60

    def divide(x: float, y: float, width: float, height: float, depth: int) -> None:
        if depth == 0 or min(width, height) < min(size) / 6:
            draw.rectangle([x + bar, y + bar, x + width - bar, y + height - bar], fill=random.choice(colours))
            return
        share = random.uniform(0.3, 0.7)
        if width > height:
            divide(x, y, width * share, height, depth - 1)
            divide(x + width * share, y, width * (1 - share), height, depth - 1)
        else:
            divide(x, y, width, height * share, depth - 1)
            divide(x, y + height * share, width, height * (1 - share), depth - 1)

    divide(0, 0, *size, 6)
    return picture


def tree(ground: Sequence[str], bark: str, leaf: str) -> Painter:
    """A tree whose branches branch."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        picture = _gradient(size, ground)
        draw = ImageDraw.Draw(picture)

        def grow(x: float, y: float, angle: float, length: float, depth: int) -> None:
            end = (x + length * math.cos(angle), y - length * math.sin(angle))
            if depth == 0:
                draw.circle(end, min(size) / 110, fill=leaf)
                return
            draw.line([(x, y), end], fill=bark, width=max(2, round(length / 8)))
            for side in (-1, 1):
                grow(*end, angle + side * random.uniform(0.2, 0.6), length * random.uniform(0.68, 0.82), depth - 1)

        grow(size[0] / 2, size[1], math.pi / 2, size[1] * 0.21, 9)
        return picture

    return paint


def plasma(colours: Sequence[str]) -> Painter:
    """Overlapping waves of colour."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        width, height = size[0] // 8, size[1] // 8
        picture = Image.new("RGB", (width, height))
        a, b, c = (random.uniform(3, 8) for _ in range(3))
        for y in range(height):
            for x in range(width):
                u, v = x / width, y / height
                waves = (
                    math.sin(a * u)
                    + math.sin(b * v)
                    + math.sin(c * (u + v))
                    + math.sin(a * math.hypot(u - 0.5, v - 0.5))
                )
                picture.putpixel((x, y), _blend(colours, (1 + math.sin(2 * waves)) / 2))
        return _resized(picture, size)

    return paint


def in_grey(painter: Painter) -> Painter:
    """The same picture in greyscale, as a scanner stores it."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        return ImageOps.autocontrast(painter(size, random).convert("L"))

    return paint


def in_a_disc(painter: Painter) -> Painter:
    """The same picture cut to a circle with transparent surroundings."""

    def paint(size: tuple[int, int], random: Random) -> Image.Image:
        picture = painter(size, random).convert("RGBA")
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).ellipse([0, 0, size[0] - 1, size[1] - 1], fill=255)
        picture.putalpha(mask)
        return picture

    return paint


_DAWN = mountains(("#1d2b64", "#f8cdda", "#ffe8c2"), "#b08bb0", "#241b3a", "#fff6df")
_NOON = mountains(("#2e8bc0", "#b7e1f3", "#f3fbff"), "#9dc3b5", "#16422f", "#ffffff")
_EVENING = mountains(("#3a1c40", "#d4485a", "#ffb25b"), "#b0506a", "#1d0f24", "#ffe0a3")
_MIST = mountains(("#d9dfe3", "#f4f5f2", "#ffffff"), "#c9d2d4", "#4a5b61", "#ffffff")

PICTURES: tuple[tuple[str, tuple[int, int], Painter], ...] = (
    ("bubbles-citrus.png", (480, 480), bubbles(("#fff7d6", "#ffd27f"), ("#ff7b54", "#ffb26b", "#939b62", "#d8572a"))),
    ("bubbles-deep-sea.jpg", (900, 600), bubbles(("#0b3954", "#087e8b"), ("#bfd7ea", "#ff5a5f", "#3bb3c3", "#f0f7ee"))),
    ("dunes.jpg", (1000, 560), dunes),
    ("dunes-tall.jpg", (520, 900), dunes),
    ("medallion.png", (420, 420), in_a_disc(tiles(("#1b4332", "#95d5b2", "#40916c")))),
    ("mountains-dawn.jpg", (1024, 640), _DAWN),
    ("mountains-evening.jpg", (1100, 500), _EVENING),
    ("mountains-in-grey.jpg", (800, 600), in_grey(_NOON)),
    ("mountains-mist.jpg", (600, 900), _MIST),
    ("mountains-noon.jpg", (960, 720), _NOON),
    ("neoplastic.png", (700, 520), neoplastic),
    ("night-forest.jpg", (640, 960), night),
    ("plasma-green.jpg", (720, 720), plasma(("#0b3d2e", "#3fa34d", "#f0f3bd"))),
    ("plasma-violet.jpg", (900, 450), plasma(("#240046", "#9d4edd", "#ffd6ff"))),
    ("sea.jpg", (1000, 667), sea),
    ("sunflower.png", (560, 560), sunflower("#14213d", "#fca311", "#e5e5e5")),
    ("sunflower-wide.png", (800, 400), sunflower("#fef6e4", "#f582ae", "#172c66")),
    ("tiles-blue.png", (640, 480), tiles(("#e8f1f2", "#13293d", "#1b98e0"))),
    ("tree-autumn.png", (480, 640), tree(("#fdf0d5", "#f7c59f"), "#3d2b1f", "#c1121f")),
    ("turned-tree-spring.jpg", (540, 720), tree(("#cdeffb", "#f1fbe5"), "#4a3728", "#f7a1c4")),
)

if __name__ == "__main__":
    main()
