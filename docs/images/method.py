"""Draws the figure of the method, method.svg, which the README shows.

    python docs/images/method.py

Plain SVG, so that text stays text. Its colours follow the reader's light or dark theme; the panel behind is
opaque, so that the figure stays readable where the theme is not known.
"""

from pathlib import Path

WIDTH, HEIGHT = 960, 430
EXPERTS = ("a", "b", "c")  # style classes of the three experts
LAYERS = ("encoder 0", "encoder 1", "decoder 0", "decoder 1")  # from input to output
ROUTE_LE = ((0.90, 0.05, 0.05), (0.10, 0.80, 0.10), (0.15, 0.05, 0.80), (0.05, 0.90, 0.05))
VECTORS = {
    "sentiment": (0.9, 0.2, 0.6, 0.1, 0.8, 0.3, 0.5),
    "entailment": (0.2, 0.7, 0.3, 0.9, 0.1, 0.6, 0.4),
    "reading": (0.4, 0.5, 0.9, 0.2, 0.3, 0.8, 0.1),
}
CHOSEN = "entailment"
BOTTOM, STEP = 302, 68  # y of the first layer's middle, distance of layers

STYLE = """
.panel { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e } .strong { fill: #ffffff }
.box { fill: #f3f5f7; stroke: #8c959f } .frame { fill: none; stroke: #8c959f }
.line { stroke: #59636e; fill: none; stroke-width: 1.6 } .tip { fill: #59636e }
.cell { fill: #6e5bb5 } .chosen { fill: none; stroke: #6e5bb5; stroke-width: 2 }
.a { fill: #0072b2; stroke: #0072b2 }
.b { fill: #d55e00; stroke: #d55e00 }
.c { fill: #009e73; stroke: #009e73 }
text { font-family: Helvetica, Arial, sans-serif; font-size: 14px; text-anchor: middle }
.title { font-size: 16px; font-weight: bold } .small { font-size: 12.5px } .left { text-anchor: start }
.math { font-size: 16px; font-family: Georgia, "Times New Roman", serif; font-style: italic }
@media (prefers-color-scheme: dark) {
.panel { fill: #0d1117 } .ink { fill: #e6edf3 } .soft { fill: #9aa4af } .strong { fill: #0d1117 }
.box { fill: #1c2128; stroke: #6e7681 } .frame { stroke: #6e7681 }
.line { stroke: #9aa4af } .tip { fill: #9aa4af } .cell { fill: #a89be0 } .chosen { stroke: #a89be0 }
.a { fill: #4aa8e0; stroke: #4aa8e0 }
.b { fill: #f08a3c; stroke: #f08a3c }
.c { fill: #35c79b; stroke: #35c79b }
}
"""


def text(x: float, y: float, words: str, style: str = "ink") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{words}</text>'


def box(x: float, y: float, width: float, height: float, style: str, opacity: float = 1.0) -> str:
    shade = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" class="{style}"{shade}/>'


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" class="line" marker-end="url(#tip)"/>'


def heading(x: float, title: str, below: str) -> list[str]:
    return [text(x, 28, title, "ink title"), text(x, 48, below, "soft small")]


def task_vectors() -> list[str]:
    """One strip of cells per task, the chosen task framed."""
    parts = heading(105, "Task vectors", "learned or computed")
    for row, (task, vector) in enumerate(VECTORS.items()):
        y = 130 + 75 * row
        parts.append(text(105, y - 10, task))
        parts += [box(35 + 20 * i, y, 20, 20, "cell", value) for i, value in enumerate(vector)]
        if task == CHOSEN:
            parts.append(box(28, y - 30, 154, 58, "chosen"))
    return parts


def router() -> list[str]:
    return [
        arrow(188, 204, 222, 204),
        box(228, 160, 104, 88, "box"),
        text(280, 200, "Router", "ink title"),
        text(280, 222, "small network", "soft small"),
        arrow(334, 204, 428, 204),
        text(381, 174, "softmax,", "soft small"),
        text(381, 191, "Gumbel, top-k", "soft small"),
    ]


def layer_y(layer: int) -> float:
    return BOTTOM - STEP * layer


def row_of_experts(layer: int, x: float, width: float, names: tuple[str, ...]) -> list[str]:
    """A box per expert of a layer, with opacity equal to its weight in the route."""
    y, parts = layer_y(layer), []
    for style, weight, name in zip(EXPERTS, ROUTE_LE[layer], names, strict=True):
        colour = "strong" if weight > 0.5 else "ink"
        parts += [
            box(x, y - 18, width, 36, style, weight),
            text(x + width / 2, y + 5, name, f"small {colour}"),
        ]
        x += 1.07 * width
    return parts


def route() -> list[str]:
    """The route: a row of weights per layer, at the height of its layer."""
    parts = heading(495, "Route of the task", "weights of the experts, per layer")
    for layer, weights_E in enumerate(ROUTE_LE):
        parts += row_of_experts(layer, 438, 36, tuple(f"{weight:.2f}" for weight in weights_E))
        parts.append(arrow(558, layer_y(layer), 596, layer_y(layer)))
    return parts


def mixture() -> list[str]:
    """The model: in every layer three whole BART layers side by side."""
    parts = heading(736, "Mixture of experts", "each expert is a whole BART layer")
    for layer, name in enumerate(LAYERS):
        y = layer_y(layer)
        parts += [box(602, y - 25, 268, 50, "frame"), text(878, y + 5, name, "soft small left")]
        parts += row_of_experts(layer, 610, 80, ("expert 0", "expert 1", "expert 2"))
        parts.append(arrow(736, y + 43, 736, y + 31))
    return [*parts, text(736, 368, f"[{CHOSEN}] input text"), arrow(736, 73, 736, 60)]


def formula() -> list[str]:
    """layer output = sum over e of weight_e expert_e(layer input)"""
    below, back = "<tspan dy='5' font-size='11'>e</tspan>", "<tspan dy='-5'>"
    words = f"layer output  =  Σ{below}{back} weight</tspan>{below}{back} · expert</tspan>{below}"
    return [
        text(300, 400, f"{words}{back}(layer input)</tspan>", "ink math"),
        text(736, 400, "a one-hot route is a plain BART", "soft small"),
    ]


def figure() -> str:
    """The SVG document."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="A router reads a task vector and gives each layer a distribution over its experts">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" class="tip"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" class="panel"/>',
        *task_vectors(),
        *router(),
        *route(),
        *mixture(),
        *formula(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(figure(), encoding="utf-8")
