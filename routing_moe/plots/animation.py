"""How routes came about, as a film: the route map at every evaluation, for slides and web pages.

    write_animation(load_history("models/moe"), Ontology.load(), "routes.gif", "Routes of moe")

GIF by Pillow, which matplotlib needs anyway; MP4 by ffmpeg where there is one. Both are written frame by
frame: memory does not grow with their number. N tasks, L layers, E experts, S steps.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter
from PIL import Image
from PIL.GifImagePlugin import getdata, getheader
from tqdm import tqdm

from dataloader.errors import in_brief
from dataloader.ontology import Ontology
from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import History, encoder_part
from routing_moe.io.files import replace_file
from routing_moe.plots.route_map import HEAT_COLOURS, RouteMap, draw_routes

SECONDS_PER_FRAME = 0.5
LAST_FRAME = 3.0  # seconds that the last one stays, at least
SHORTEST, LONGEST = 0.02, 60.0  # seconds of a frame; browsers slow a GIF down that has shorter ones
MOST_PIXELS = 4_000_000
# Dots per inch, the first at which a frame has no more pixels. Numbers of two bits, as (n / dots) * dots is
# exactly n of these alone (Kahan): with others, a frame may be a pixel smaller than what ffmpeg was told.
DOTS = (128, 96, 80, 72, 64, 48, 40, 32, 24, 20, 16)
# Of the 256 colours of a GIF, the last stands for what does not change, and so many others are for the map
# and for letters and lines: with few of them, little changes, and the file is small.
CLEAR, SHADES, GREYS = 255, 48, 32
COLOURFUL = 8  # levels between a colour's channels; with less it is a grey
MP4_FORMAT = ("-pix_fmt", "yuv420p", "-r", "10", "-movflags", "+faststart")  # what all players show


def write_animation(
    history: History,
    ontology: Ontology,
    path: str | os.PathLike,
    title: str | None = None,
    seconds_per_frame: float = SECONDS_PER_FRAME,
    tween: int = 0,
    quiet: bool = False,
) -> None:
    """Writes a frame per evaluation, the last one held longer: GIF if `path` ends in .gif, MP4 if in .mp4.

    A GIF starts again when it ends. tween: so many frames more between two evaluations, blends of the two
    under the heading of the first: smooth to see, but not what the model was in between. quiet: no progress
    bar. The file appears at once or not at all. Raises ValueError for another ending and numbers out of
    range (check_seconds); OSError if ffmpeg is not there or fails.
    """
    path = Path(path)
    check_seconds(seconds_per_frame, tween)
    writer = _writer_of(path)(fps=(tween + 1) / seconds_per_frame)
    heading = f"{title}\n" if title else ""
    picture = draw_routes(
        history.values_SNLE[-1], history.tasks, ontology, encoder_part(history.layers),
        heading + _caption(history, -1), history.layers,
    )  # fmt: skip
    frames = _Frames(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.unfinished{path.suffix}")
    try:
        with writer.saving(picture.figure, str(unfinished), picture.figure.dpi):
            total = len(history.steps) + (len(history.steps) - 1) * tween
            film = tqdm(
                _film(history, tween), path.name, total=total, unit="frame", leave=False, disable=quiet
            )
            for number, (routes_NLE, caption) in enumerate(film, start=1):
                times = math.ceil(LAST_FRAME * writer.fps) if number == total else 1
                writer.add(frames.draw(routes_NLE, heading + caption), times)
        replace_file(unfinished, path)
    except subprocess.CalledProcessError as error:
        raise OSError(f"{path}: ffmpeg failed ({in_brief(ValueError(error.stderr))})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _writer_of(path: Path) -> type:
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: an animation's name must end in {' or '.join(WRITERS)}")
    if writer is _Mp4Writer and not can_write_mp4():
        raise OSError(f"{path}: needs ffmpeg with an H.264 encoder, which is not there; write a .gif")
    return writer


def can_write_mp4() -> bool:
    """Whether there is an ffmpeg that can write H.264: found by trying, as builds differ."""
    if not FFMpegWriter.isAvailable():
        return False
    source = ("-f", "rawvideo", "-pix_fmt", "rgba", "-s", "64x64", "-i", "pipe:")
    command = [FFMpegWriter.bin_path(), *source, "-vcodec", "h264", "-pix_fmt", "yuv420p", "-f", "null", "-"]
    tried = subprocess.run(command, input=bytes(64 * 64 * 4), capture_output=True, check=False)
    return tried.returncode == 0


def check_seconds(seconds_per_frame: float, tween: int = 0) -> None:
    """Raises ValueError unless a frame stays from SHORTEST to LONGEST seconds, blends included."""
    if tween < 0:
        raise ValueError(f"tween is {tween}; it must be 0 or greater")
    if not SHORTEST <= seconds_per_frame / (tween + 1) <= LONGEST:  # false for NaN, too
        blends = f" for {tween + 1} frames each" if tween else ""
        raise ValueError(
            f"{seconds_per_frame:g}{blends}; it must be from {SHORTEST:g} to {LONGEST:g} seconds"
        )


# ---------------------------------------------------------------------------- frames


def _film(history: History, tween: int) -> Iterator[tuple[np.ndarray, str]]:
    """The routes and the caption of each frame."""
    for index, values_NLE in enumerate(history.values_SNLE):
        yield values_NLE, _caption(history, index)
        if index + 1 < len(history.steps):
            following_NLE = history.values_SNLE[index + 1]
            for share in np.arange(1, tween + 1) / (tween + 1):
                yield (1 - share) * values_NLE + share * following_NLE, _caption(history, index)


def _caption(history: History, index: int) -> str:
    entropy = route_metrics.entropy(history.values_SNLE[index]).mean()
    return f"step {history.steps[index]} of {history.steps[-1]}, mean entropy {entropy:.2f} log E"


class _Frames:
    """Pictures of other routes on the same canvas: what stays the same is drawn once, and kept as pixels.

    The figure gets the most dots per inch of DOTS at which a frame fits, and even sides, as H.264 needs.
    """

    def __init__(self, picture: RouteMap):
        self.picture, figure, heat = picture, picture.figure, picture.heat
        width, height = figure.get_size_inches()
        dots = next((n for n in DOTS if width * height * n**2 <= MOST_PIXELS), DOTS[-1])
        figure.set_dpi(dots)
        figure.set_size_inches(*(2 * round(inches * dots / 2) / dots for inches in (width, height)))
        self._moving = (picture.image, *heat.lines, *heat.spines.values(), picture.title)
        for artist in self._moving:
            artist.set_animated(True)  # draw() leaves these out
        figure.canvas.draw()
        self._still = figure.canvas.copy_from_bbox(figure.bbox)

    def draw(self, routes_NLE: np.ndarray, caption: str) -> np.ndarray:
        """(height, width, 4) of uint8, which the next frame overwrites."""
        canvas = self.picture.figure.canvas
        canvas.restore_region(self._still)
        self.picture.show(routes_NLE, caption)
        for artist in self._moving:
            artist.draw(canvas.get_renderer())
        return np.asarray(canvas.buffer_rgba())


# ---------------------------------------------------------------------------- files


class _GifWriter(AbstractMovieWriter):
    """A GIF of what changes from frame to frame, in the same colours throughout.

    matplotlib's PillowWriter holds all frames until the end, and picks colours anew for each.
    """

    def setup(self, fig, outfile, dpi=None):
        super().setup(fig, outfile, dpi)
        self._file = open(outfile, "wb")  # noqa: SIM115 - closed in finish, which `saving` sees to
        self._shown = None

    def add(self, drawn: np.ndarray, times: int) -> None:
        drawn = Image.fromarray(drawn).convert("RGB")
        first = self._shown is None
        if first:
            self._palette = _palette(drawn)
        frame = drawn.quantize(palette=self._palette, dither=Image.Dither.NONE)
        pixels, box = np.asarray(frame), (0, 0, 1, 1)  # of a frame like the last, a dot: its time counts
        if first:
            self._file.writelines(getheader(frame.copy(), info={"loop": 0})[0])
            box = (0, 0, *frame.size)
        elif (changed := pixels != self._shown).any():
            box = Image.fromarray(changed).getbbox()
            frame.paste(CLEAR, mask=Image.fromarray(~changed))
        self._shown = pixels
        self._file.writelines(
            getdata(
                frame.crop(box), box[:2], duration=round(1000 * times / self.fps),
                transparency=CLEAR, include_color_table=not first,
            )
        )  # fmt: skip

    def grab_frame(self, **savefig_kwargs):
        self.add(np.asarray(self.fig.canvas.buffer_rgba()), 1)

    def finish(self):
        self._file.write(b";")
        self._file.close()


def _palette(frame: Image.Image) -> Image.Image:
    """Shades of the map, which no single frame has all of, greys of letters, and the commonest other colours.

    Pillow takes colours that are nearly alike for one: a grey for white, were there more of them.
    """
    every_shade = colormaps[HEAT_COLOURS](np.arange(256), bytes=True)[:, :3]
    shades = every_shade[np.linspace(0, 255, SHADES).round().astype(int)]
    greys = np.repeat(np.linspace(0, 255, GREYS).round().astype(int)[:, None], 3, axis=1)
    of_map = set(map(tuple, every_shade.tolist()))
    counted = sorted(frame.getcolors(frame.width * frame.height), reverse=True)
    others = [
        colour for _, colour in counted if colour not in of_map and max(colour) - min(colour) >= COLOURFUL
    ]
    colours = [*shades.tolist(), *greys.tolist(), *others][:CLEAR]
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for colour in colours for level in colour])
    return palette


class _Mp4Writer(FFMpegWriter):
    def __init__(self, fps: float):
        super().__init__(fps=fps, codec="h264", extra_args=list(MP4_FORMAT))

    def add(self, drawn: np.ndarray, times: int) -> None:
        for _ in range(times):
            self._proc.stdin.write(drawn)


WRITERS = {".gif": _GifWriter, ".mp4": _Mp4Writer}
