"""The route map: drawn for any size, complete, legible, and written whole or not at all."""

import numpy as np
import pytest
import torch
from conftest import assert_apart_and_inside
from matplotlib.image import imread

from dataloader.ontology import Ontology
from routing_moe.plots import route_map as pictures
from routing_moe.plots.route_map import plot_routes

ONTOLOGY = Ontology.load()


def routes(n_tasks, n_layers, n_experts):
    return np.random.default_rng(0).dirichlet([0.5] * n_experts, (n_tasks, n_layers))


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, kept instead of written."""
    kept = []
    monkeypatch.setattr(pictures, "write_figure", lambda figure, path: kept.append(figure))
    return kept


@pytest.mark.parametrize(
    ("n_tasks", "n_layers", "n_experts", "encoder_layers"),
    [(1, 1, 2, 0), (1, 12, 3, 6), (6, 4, 2, 2), (50, 6, 16, 6)],
)
def test_a_picture_of_any_size_is_written(tmp_path, n_tasks, n_layers, n_experts, encoder_layers):
    path = tmp_path / "new" / "map.png"
    tasks = ONTOLOGY.tasks[:n_tasks]
    plot_routes(routes(n_tasks, n_layers, n_experts), tasks, ONTOLOGY, path, encoder_layers, "A title")
    assert imread(path).std() > 0
    assert [file.name for file in path.parent.iterdir()] == ["map.png"]


def test_the_rows_are_the_routes_in_the_ontologys_order(figures):
    tasks = ["boolq", "unheard-of", "glue-rte"]
    values = routes(3, 2, 3)
    plot_routes(values, tasks, ONTOLOGY, "map.png", 1)
    heat, strips = figures[0].axes[:2]
    assert [label.get_text() for label in strips.get_yticklabels()] == ["glue-rte", "boolq", "unheard-of"]
    drawn = heat.images[0].get_array()
    assert np.allclose(drawn, values[[2, 0, 1]].reshape(3, 6))
    assert heat.images[0].get_clim() == (0.0, 1.0)


def test_layers_are_named_and_encoder_and_decoder_set_apart(figures):
    plot_routes(routes(4, 5, 2), ONTOLOGY.tasks[:4], ONTOLOGY, "map.png", 3)
    heat = figures[0].axes[0]
    assert [text.get_text() for text in heat.texts] == ["enc 0", "enc 1", "enc 2", "dec 0", "dec 1"]
    (thick,) = [line for line in heat.lines if line.get_linewidth() > 2]
    assert list(thick.get_xdata()) == [6, 6]


@pytest.mark.parametrize(
    ("n_tasks", "n_layers", "n_experts"), [(2, 1, 2), (6, 4, 2), (105, 12, 3), (160, 24, 16)]
)
def test_nothing_overlaps_and_nothing_is_cut_off(figures, n_tasks, n_layers, n_experts):
    tasks = ONTOLOGY.tasks[-n_tasks:]
    plot_routes(
        routes(n_tasks, n_layers, n_experts), tasks, ONTOLOGY, "map.png", n_layers // 2, "Routes " * 20
    )
    figure = figures[0]
    heat, strips, bar, legend = figure.axes
    boxes = [axes.get_tightbbox() for axes in (heat, strips, bar, legend)]
    assert_apart_and_inside(figure, boxes, figure.texts[0].get_window_extent())
    assert figure.texts[0].get_window_extent().y0 > boxes[0].y1


def test_the_legend_names_every_kind_drawn_and_a_kind_keeps_its_colour(figures):
    plot_routes(routes(2, 2, 2), ["boolq", "unheard-of"], ONTOLOGY, "map.png", 1)
    plot_routes(routes(3, 2, 2), ["glue-rte", "imdb", "boolq"], ONTOLOGY, "map.png", 1)
    names = [[text.get_text() for text in figure.axes[3].texts] for figure in figures]
    assert names == [
        ["qa", "binary", "uncategorised"],
        ["classification", "nli", "sentiment analysis", "qa", "binary"],
    ]
    small, large = (figure.axes[1].images[0].get_array() for figure in figures)
    assert np.array_equal(small[0], large[2])


def test_a_tensor_with_a_gradient_is_drawn_and_the_same_routes_give_the_same_bytes(tmp_path):
    tensor = torch.tensor(routes(2, 2, 2), dtype=torch.bfloat16, requires_grad=True)
    for name in ("map.png", "map.pdf"):
        paths = tmp_path / name, tmp_path / f"again_{name}"
        for path in paths:
            plot_routes(tensor, ["boolq", "$x_{"], ONTOLOGY, path, 1, "a $ and _")
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")
    assert b"/Type3" not in (tmp_path / "map.pdf").read_bytes()  # letters, not drawings of them


def test_a_picture_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "map.png"
    path.write_bytes(b"old")

    def fail(self, *args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(pictures.Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_routes(routes(1, 2, 2), ["boolq"], ONTOLOGY, path, 1)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("shape", "tasks", "encoder_layers", "name", "message"),
    [
        ((2, 3), ["a", "b"], 1, "x.png", "expected \\(tasks, layers, experts\\)"),
        ((2, 3, 2), ["a"], 1, "x.png", "1 task names for routes of 2"),
        ((2, 3, 2), ["a", "a"], 1, "x.png", "listed twice: a"),
        ((2, 3, 2), ["a", "b"], 4, "x.png", "encoder_layers is 4"),
        ((2, 3, 2), ["a", "b"], 1, "x.svg", "must end in .png or .pdf"),
    ],
)
def test_routes_that_do_not_fit_are_refused(shape, tasks, encoder_layers, name, message):
    with pytest.raises(ValueError, match=message):
        plot_routes(np.zeros(shape), tasks, ONTOLOGY, name, encoder_layers)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        plot_routes(np.full((1, 1, 2), np.nan), ["a"], ONTOLOGY, "x.png", 1)
