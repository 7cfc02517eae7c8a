"""The report page in a browser: curves; keyboard, touch, screen reader; print; names."""

from __future__ import annotations

import pandas as pd
import pytest
from page_browser import PHONE, WIDE, Keys
from page_data import page_data

from routing_moe.analysis.features import SHIPPED_FEATURES

pytestmark = pytest.mark.browser

# ---------------------------------------------------------------------------- curves


def test_curves_are_read_by_keyboard(page):
    data = page_data()
    page.open(data)
    page.js("document.querySelector('svg.chart').focus()")
    page.type(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    step, value = (data["runs"][0]["curves"][0][field][1] for field in ("steps", "values"))
    assert page.texts(".readout-step")[0] == f"at step {step}"
    readout = dict(
        zip(page.texts(".readout li span:nth-of-type(1)"), page.texts(".readout .number"), strict=True)
    )
    assert float(readout["train loss, run 1"]) == pytest.approx(value, abs=5e-4)
    assert readout["dev loss, run 1"] == "–"  # measured at every fifth step only


def chart_with(page, title):
    """Returns the place of the chart with this title, from 1."""
    return page.texts("#curves figcaption").index(title) + 1


def test_optimizer_curves_and_isolated_values_are_drawn(page):
    data = page_data()
    optimizer = [curve for curve in data["runs"][0]["curves"] if curve["group"] == "optimizer"]
    optimizer[0] |= {"name": "temperature", "values": optimizer[1]["values"]}  # of the same size
    score = next(curve for curve in data["runs"][0]["curves"] if curve["name"] == "dev score")
    score |= {"steps": [200], "values": [0.5]}
    page.open(data)
    titles = {"Optimizer: temperature", "Optimizer: gradient norm", "Optimizer: learning rate"}
    assert titles <= set(page.texts("#curves figcaption"))
    dots = f".chart-figure:nth-child({chart_with(page, 'Score: dev score')}) circle.hue-0"
    assert page.js("return document.querySelectorAll(arguments[0]).length", dots) == 1


def test_a_curve_is_labelled_at_its_own_end_with_its_run(page):
    data = page_data()
    for curve in data["runs"][1]["curves"]:
        half = len(curve["steps"]) // 2
        curve |= {"steps": curve["steps"][:half], "values": curve["values"][:half]}
        if curve["group"] == "loss":
            curve["name"] = f"a name that is far too long: {curve['name']}"
    page.open(data)
    ends = page.js(
        "return [...document.querySelectorAll('.chart-figure:first-child .end-label')]"
        ".map(node => [node.textContent, +node.getAttribute('x')])"
    )
    width = page.js("return document.querySelector('.chart').clientWidth")
    assert sorted({text.split(":")[0] for text, _ in ends}) == ["run 1", "run 2"]
    early = [x for text, x in ends if text.startswith("run 2")]
    late = [x for text, x in ends if text == "run 1: train loss"]
    assert max(early) < 0.6 * width < min(late)
    assert any("…" in text for text, _ in ends)


# ---------------------------------------------------------------------------- touch


def test_a_tap_on_a_chart_shows_its_values_until_a_tap_elsewhere(page):
    page.open(page_data(), PHONE, mobile=True)
    readout = "return document.querySelector('.readout-step').textContent"
    with page.touch() as tap:
        tap("svg.chart")
        page.wait(readout + ".startsWith('at step')")
        tap("#curves h2")
        page.wait(readout + " === 'last values'")
        page.js("location.reload()")
        page.wait("return performance.getEntriesByName('drawn').length > 0")
        assert page.texts("#curves .lead")[0].startswith("Tap a chart")


def test_the_first_column_stays_visible_when_a_table_is_scrolled_sideways(page):
    page.open(page_data(), PHONE, mobile=True)
    page.js("document.querySelector('#score-table .scroll').scrollLeft = 200")
    box, name, head = page.js(
        "return ['', ' tbody th', ' thead tr:last-child th'].map(part => "
        "document.querySelector(`#score-table .scroll${part}`).getBoundingClientRect().left)"
    )
    assert (name - box, head - box) == (1, 1)


# ---------------------------------------------------------------------------- the keyboard


def test_focus_moves_from_a_table_to_the_details_and_back(page):
    data = page_data()
    page.open(data)
    for leave in ("Close", Keys.ESCAPE):
        page.js("document.querySelector('#score-table thead button').focus()")
        page.type(Keys.TAB)
        while page.js("return !document.activeElement.matches('tbody *')"):
            page.type(Keys.TAB)
        name = page.focused()
        page.type(Keys.ENTER)
        assert page.js("return document.activeElement.id") == "detail-heading"
        assert page.focused() == name
        if leave == "Close":
            page.type(Keys.TAB)
            assert page.focused() == "Close"
            leave = Keys.ENTER
        page.type(leave)
        assert not page.shown("#detail")
        assert page.js("return document.activeElement.matches('#score-table tbody button')")
        assert page.focused() == name


def test_escape_in_a_field_does_not_change_the_selection(page):
    page.open(page_data())
    page.click('.row-name[data-task="1"]')
    page.js("document.querySelector('#scores input[type=search]').focus()")
    page.type(Keys.ESCAPE)
    assert page.shown("#detail")
    page.js("document.activeElement.blur()")
    page.type(Keys.ESCAPE)
    assert not page.shown("#detail")


# ---------------------------------------------------------------------------- a screen reader


def test_heads_have_full_names_and_a_single_live_region_announces_changes(page):
    page.open(page_data())
    assert page.labels("#score-table thead button")[1:3] == ["dev, run 1", "dev, run 2"]
    assert len(page.texts("[role=status], [aria-live]")) == 1
    page.click('.row-name[data-task="1"]')
    assert page.texts("#live")[0].startswith("Selected the task")
    page.fill("#scores input[type=search]", "qa")
    assert page.texts("#live") == page.texts("#score-table .count")


def test_blank_names_are_replaced_and_can_be_clicked(page):
    data = page_data(names={1: "", 2: "  "})
    data["runs"][1]["name"] = " "
    page.open(data)
    assert page.texts(".map-figure strong") == ["run 1", "(no name)"]
    page.click('.row-name[data-task="2"]')
    assert page.texts("#detail h2") == ["(no name)"]


# ---------------------------------------------------------------------------- print


STRIPS = """
return [...document.querySelectorAll(".map-figure:first-child .map-row")].map(row => {
  const [strip, head] = [row.querySelector("canvas"), row.querySelector(".row-head")];
  const [a, b] = [strip, head].map(node => node.getBoundingClientRect());
  const pen = new OffscreenCanvas(strip.width, 1).getContext("2d", {willReadFrequently: true});
  pen.drawImage(strip, 0, -strip.height / 2);
  const seen = arguments[0].map(x => [...pen.getImageData(x * strip.width, 0, 1, 1).data].slice(0, 3));
  return [a.top - b.top, a.left - b.right, seen];
});
"""


def test_in_print_each_row_of_a_map_has_its_own_cells_and_no_table_is_cut(page):
    data = page_data(n_tasks=60, n_runs=4)
    for row in data["runs"][0]["routes"]:
        row[:3] = [0, 10_000, 0]
    data["runs"][0]["routes"][7][:3] = [10_000, 0, 0]
    page.open(data, scheme="dark")
    screen = page.js("return document.querySelector('.map').innerHTML")
    page.js("dispatchEvent(new Event('beforeprint'))")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        rows = page.js(STRIPS, [0.5 / 9, 1.5 / 9])
        assert len(rows) == 60
        assert {(top, left) for top, left, _ in rows} == {(0, 0)}
        low, high = [247, 251, 255], [8, 48, 107]
        assert [seen for *_, seen in rows] == [[high, low] if n == 7 else [low, high] for n in range(60)]
        assert not page.shown(".map-body > canvas")
        widths = "return [...document.querySelectorAll('table.data, .map')].map(n => n.offsetWidth)"
        scale = "return [...document.querySelectorAll('table.data, .map')].map(n => +n.style.zoom || 1)"
        wide = [width * zoom for width, zoom in zip(page.js(widths), page.js(scale), strict=True)]
        assert max(wide) <= 960
        assert min(page.js(scale)) < 1
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.js("dispatchEvent(new Event('afterprint'))")
    assert page.js("return document.querySelector('.map').innerHTML") == screen
    assert set(page.js(scale)) == {1}


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize(("size", "n_runs"), [(PHONE, 1), (WIDE, 1), (WIDE, 3)])
def test_shortened_task_names_of_the_gym_are_unique(page, size, n_runs):
    names = dict(enumerate(pd.read_csv(SHIPPED_FEATURES)["task"]))
    page.open(page_data(len(names), 6, 6, n_runs=n_runs, names=names), size)
    shown = page.texts(".map-figure:first-child .row-name")
    assert sorted(page.labels(".map-figure:first-child .row-name")) == sorted(names.values())
    assert len(set(shown)) == len(names)
    if size == PHONE:
        assert sum("…" in text for text in shown) > 20


def test_lists_of_tasks_show_full_names(page):
    names = {place: f"a-name-that-is-long-and-ends-differently_{place}" for place in range(12)}
    page.open(page_data(names=names), PHONE)
    page.click('.row-name[data-task="3"]')
    cut = (
        "return [...document.querySelectorAll('.ranked .link')]"
        ".filter(n => n.scrollWidth > n.clientWidth || n.scrollHeight > n.clientHeight).length"
    )
    assert len(page.texts(".ranked .link")) == 22
    assert page.js(cut) == 0
