"""An animation of routes over training: the route map at every evaluation, as a GIF.

write_animation(load_history("models/moe"), Ontology.load(), "routes.gif", "Routes of moe")
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from dataloader.atomic_files import write_bytes
from dataloader.ontology import Ontology
from dataloader.progress import ProgressBar
from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import History, encoder_part
from routing_moe.plots.route_map import route_map
from routing_moe.plots.style import STYLE

LAST_FRAME = 3.0  # seconds for which the last one is held, at least
DOTS_PER_INCH = 128
MOST_PIXELS = 4_000_000  # of a frame; Pillow holds all frames, a byte per pixel, until the GIF is written


@rc_context(STYLE)
def write_animation(
    history: History,
    ontology: Ontology,
    path: str | os.PathLike,
    title: str | None = None,
    seconds_per_frame: float = 0.5,
) -> None:
    """Writes a frame per step of the history, the last one held longer; the GIF starts again when it ends.

    The file is written atomically; its folder must exist.
    """
    milliseconds = [round(1000 * seconds_per_frame)] * len(history.steps)
    milliseconds[-1] *= math.ceil(LAST_FRAME / seconds_per_frame)
    frames = _frames(history, ontology, f"{title}\n" if title else "")
    progress = ProgressBar(frames, os.fspath(path), len(history.steps), unit="frame")
    gif = io.BytesIO()
    options = dict(save_all=True, append_images=progress, duration=milliseconds, loop=0)
    next(frames).save(gif, "GIF", **options)
    write_bytes(path, gif.getbuffer())


def _frames(history: History, ontology: Ontology, heading: str) -> Iterator[Image.Image]:
    """A frame per step, all in the colours of one palette: what stays the same keeps its colour."""
    picture = route_map(
        history.values_SNLE[-1], history.tasks, ontology, encoder_part(history.layers),
        heading + _caption(history, -1), history.layers,
    )  # fmt: skip
    figure = picture.figure
    width, height = figure.get_size_inches()
    figure.set_dpi(min(DOTS_PER_INCH, math.floor(math.sqrt(MOST_PIXELS / (width * height)))))
    shape = history.values_SNLE.shape[1:]
    picture.show(np.linspace(0, 1, math.prod(shape)).reshape(shape), heading + _caption(history, 0))
    palette = _drawn(figure).quantize(256, Image.Quantize.MAXCOVERAGE)  # of every shade
    levels = np.array(palette.getpalette()).reshape(-1, 3)
    levels[levels.min(axis=1) >= 248] = 255  # the paper: not the mean of white and pale colours
    palette.putpalette(levels.ravel().tolist())
    for index, values_NLE in enumerate(history.values_SNLE):
        picture.show(values_NLE, heading + _caption(history, index))
        yield _drawn(figure).quantize(palette=palette, dither=Image.Dither.NONE)


def _drawn(figure: Figure) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def _caption(history: History, index: int) -> str:
    entropy = route_metrics.entropy(history.values_SNLE[index]).mean()
    return f"step {history.steps[index]} of {history.steps[-1]}, mean entropy {entropy:.2f} log E"
