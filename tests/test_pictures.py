"""What holds for every picture: complete, legible, written whole or not at all."""

from itertools import combinations, pairwise

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from sample_pictures import PICTURES

AS_WIDE_AS_A_PAPER = (
    "load",
    "dynamics",
    "agreement",
    "feature drops",
    "comparison",
    "curves",
    "gains, small",
)
SMALL = [name for name in PICTURES if "small" in name or name in ("load, one run", "task drops")]


def boxes_of(figure) -> list:
    """Boxes, in pixels, of all axes with their labels, of legends and of titles."""
    texts = [text for text in figure.texts if text.get_text()]
    return [*(axes.get_tightbbox() for axes in figure.axes if axes.get_visible()),
            *(part.get_window_extent() for part in (*figure.legends, *texts))]  # fmt: skip


def overlap(one, other) -> float:
    """By how many pixels two boxes overlap."""
    return min(one.x1 - other.x0, other.x1 - one.x0, one.y1 - other.y0, other.y1 - one.y0)


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_overlaps_is_cut_off_or_read_as_a_formula(figures, name):
    PICTURES[name]()("x.png")
    (figure,) = figures
    boxes = boxes_of(figure)
    assert all(overlap(one, other) <= 0.5 for one, other in combinations(boxes, 2))
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    for axes in (axes for axes in figure.axes if axes.axison):
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label for label in labels if label.get_visible() and label.get_text()]
            if not any(label.get_rotation() for label in shown):
                extents = [label.get_window_extent() for label in shown]
                assert all(overlap(*pair) <= 1.5 for pair in pairwise(extents))
    texts = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert not any(text.get_parse_math() for text in texts)
    assert texts or name not in SMALL
    if name.startswith(AS_WIDE_AS_A_PAPER):
        assert figure.get_figwidth() == 6.75


@pytest.mark.parametrize("name", SMALL)
def test_pictures_are_written_and_letters_stay_letters(tmp_path, name):
    draw, folder = PICTURES[name](), tmp_path / "new"
    for kind in ("png", "pdf"):
        draw(folder / f"x.{kind}")
    assert imread(folder / "x.png").std() > 0
    written = (folder / "x.pdf").read_bytes()
    assert written.startswith(b"%PDF")
    assert b"/CIDFontType2" in written
    assert b"/Type3" not in written  # drawings of letters
    assert len(list(folder.iterdir())) == 2


def test_a_picture_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "map.png"
    path.write_bytes(b"old")

    def fail(self, *args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        PICTURES["routes, small"]()(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
