"""An animation of routes over training: the route map at every evaluation, as a GIF."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from PIL import Image

from dataloader.atomic_files import write_bytes
from dataloader.ontology import Ontology
from dataloader.progress import ProgressBar
from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import History
from routing_moe.pictures.heat_maps import plot_routes
from routing_moe.pictures.style import STYLE, finished

FRAME, LAST_FRAME = 500, 3000  # milliseconds of a frame, and of the last one
MOST_PIXELS = 4_000_000  # of a frame; Pillow holds all frames, a byte per pixel, until the GIF is written


def save_animation(history: History, ontology: Ontology, path: str | Path, title: str) -> None:
    """Writes a frame for each step, the last one held longer; the GIF starts again when it ends."""
    milliseconds = [FRAME] * (len(history.steps) - 1) + [LAST_FRAME]
    frames = frames_of(history, ontology, title)
    progress = ProgressBar(frames, str(path), len(history.steps), unit="frame")
    gif = io.BytesIO()
    next(frames).save(gif, "GIF", save_all=True, append_images=progress, duration=milliseconds, loop=0)
    write_bytes(path, gif.getbuffer())


def frames_of(history: History, ontology: Ontology, title: str) -> Iterator[Image.Image]:
    """Yields a frame for each step in the colours of one palette: what stays the same keeps its colour."""
    entropies_S = [route_metrics.entropy(values_NLE).mean() for values_NLE in history.values_SNLE]
    captions = [
        f"step {step} of {history.steps[-1]}, mean entropy {entropy:.2f} log E"
        for step, entropy in zip(history.steps, entropies_S, strict=True)
    ]
    figure = plot_routes(history.values_SNLE[-1], history.tasks, history.layers, ontology)
    with rc_context(STYLE):
        box = finished(figure, f"{title}\n{captions[-1]}")
    dots = min(128, math.floor(math.sqrt(MOST_PIXELS / box.size.prod())))
    (image,), (text,) = figure.axes[0].images, figure.texts
    heading = text.get_text().rpartition("\n")[0]  # broken into lines

    def frame(values: np.ndarray, caption: str) -> Image.Image:
        drawn = io.BytesIO()
        image.set_data(values.reshape(len(history.tasks), -1))
        text.set_text(f"{heading}\n{caption}")
        figure.savefig(drawn, format="png", dpi=dots, bbox_inches=box)
        return Image.open(drawn).convert("RGB")

    shades = np.linspace(0, 1, history.values_SNLE[0].size)
    palette = frame(shades, captions[0]).quantize(256, Image.Quantize.MAXCOVERAGE)
    levels = np.array(palette.getpalette()).reshape(-1, 3)
    levels[levels.min(axis=1) >= 248] = 255  # the paper: not the mean of white and pale colours
    palette.putpalette(levels.ravel().tolist())
    for values_NLE, caption in zip(history.values_SNLE, captions, strict=True):
        yield frame(values_NLE, caption).quantize(palette=palette, dither=Image.Dither.NONE)
