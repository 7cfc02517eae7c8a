"""An animation of routes over training: the route map at every evaluation, for slides and web pages.

    write_animation(load_history("models/moe"), Ontology.load(), "routes.gif", "Routes of moe")

Pillow writes the GIF, ffmpeg converts it to MP4 where it is installed. matplotlib's own writers draw the
whole figure for every frame, seconds for a large map; here only what changes is drawn again.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.animation import FFMpegWriter
from PIL import Image
from tqdm import tqdm

from dataloader.atomic_files import replace_file
from dataloader.errors import in_brief
from dataloader.ontology import Ontology
from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import History, encoder_part
from routing_moe.config.explain import SECONDS
from routing_moe.plots.route_map import RouteMap, route_map
from routing_moe.plots.style import STYLE

LAST_FRAME = 3.0  # seconds for which the last one is held, at least
DOTS_PER_INCH = 128
MOST_PIXELS = 4_000_000  # of a frame; Pillow holds all frames, a byte per pixel, until the GIF is written
# What all players show: H.264 needs even sides.
MP4_FORMAT = (
    "-codec:v", "h264", "-pix_fmt", "yuv420p", "-r", "10", "-movflags", "+faststart",
    "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white",
)  # fmt: skip


@rc_context(STYLE)
def write_animation(
    history: History,
    ontology: Ontology,
    path: str | os.PathLike,
    title: str | None = None,
    seconds_per_frame: float = 0.5,
    quiet: bool = False,
) -> None:
    """Writes a frame per evaluation, the last one held longer: GIF if `path` ends in .gif, MP4 if in .mp4.

    A GIF starts again when it ends. quiet: no progress bar. The file is written atomically. Raises
    ValueError for another ending and for seconds out of range; OSError if ffmpeg is missing or fails.
    """
    path = Path(path)
    if not SECONDS.holds(seconds_per_frame):
        raise ValueError(f"seconds_per_frame is {seconds_per_frame:g}; it must be {SECONDS.must_be}")
    _check_format(path)
    heading = f"{title}\n" if title else ""
    picture = route_map(
        history.values_SNLE[-1], history.tasks, ontology, encoder_part(history.layers),
        heading + _caption(history, -1), history.layers,
    )  # fmt: skip
    milliseconds = [round(1000 * seconds_per_frame)] * len(history.steps)
    milliseconds[-1] *= math.ceil(LAST_FRAME / seconds_per_frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    gif, mp4 = (path.with_name(f".{path.stem}.{os.getpid()}.unfinished.{kind}") for kind in ("gif", "mp4"))
    try:
        frames = _frames(picture, history, heading)
        progress = tqdm(frames, path.name, total=len(history.steps), unit="frame", leave=False, disable=quiet)
        next(frames).save(gif, append_images=progress, save_all=True, loop=0, duration=milliseconds)
        if path.suffix.lower() == ".mp4":
            command = [FFMpegWriter.bin_path(), "-loglevel", "error", "-i", str(gif), *MP4_FORMAT, str(mp4)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(f"{path}: ffmpeg failed ({in_brief(ValueError(done.stderr))})")
            replace_file(mp4, path)
        else:
            replace_file(gif, path)
    finally:
        gif.unlink(missing_ok=True)
        mp4.unlink(missing_ok=True)


def can_write_mp4() -> bool:
    """Returns whether ffmpeg can write H.264. It is run to find out, because builds differ."""
    if not FFMpegWriter.isAvailable():
        return False
    source = ("-f", "rawvideo", "-pix_fmt", "rgba", "-s", "64x64", "-i", "pipe:")
    command = [FFMpegWriter.bin_path(), *source, "-vcodec", "h264", "-pix_fmt", "yuv420p", "-f", "null", "-"]
    tried = subprocess.run(command, input=bytes(64 * 64 * 4), capture_output=True, check=False)
    return tried.returncode == 0


def _check_format(path: Path) -> None:
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"{path}: an animation's name must end in .gif or .mp4")
    if path.suffix.lower() == ".mp4" and not can_write_mp4():
        raise OSError(f"{path}: needs ffmpeg with an H.264 encoder, which is not installed; write a .gif")


# ---------------------------------------------------------------------------- frames


def _caption(history: History, index: int) -> str:
    entropy = route_metrics.entropy(history.values_SNLE[index]).mean()
    return f"step {history.steps[index]} of {history.steps[-1]}, mean entropy {entropy:.2f} log E"


def _frames(picture: RouteMap, history: History, heading: str) -> Iterator[Image.Image]:
    """A frame per evaluation, all in the colours of one palette: what stays the same keeps its colour."""
    figure, canvas = picture.figure, picture.figure.canvas
    width, height = figure.get_size_inches()
    figure.set_dpi(min(DOTS_PER_INCH, math.floor(math.sqrt(MOST_PIXELS / (width * height)))))
    changing = (picture.image, *picture.heat.lines, *picture.heat.spines.values(), picture.title)
    for artist in changing:
        artist.set_animated(True)  # canvas.draw() leaves these out
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)

    def drawn(routes_NLE: np.ndarray, caption: str) -> Image.Image:
        canvas.restore_region(background)
        picture.show(routes_NLE, heading + caption)
        for artist in changing:
            figure.draw_artist(artist)
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")

    shape = history.values_SNLE.shape[1:]
    every_shade_NLE = np.linspace(0, 1, math.prod(shape)).reshape(shape)
    palette = drawn(every_shade_NLE, _caption(history, 0)).quantize(256, Image.Quantize.MAXCOVERAGE)
    levels = np.array(palette.getpalette()).reshape(-1, 3)
    levels[levels.min(axis=1) >= 248] = 255  # the paper: not the mean of white and pale colours
    palette.putpalette(levels.ravel().tolist())
    for index, values_NLE in enumerate(history.values_SNLE):
        yield drawn(values_NLE, _caption(history, index)).quantize(palette=palette, dither=Image.Dither.NONE)
