"""The report page in a browser: routes by pointer, touch and keyboard; appearance; security; size."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from page_browser import (
    MARKUP,
    PHONE,
    SCRIPT_END,
    WHOLE,
    WIDE,
    ActionChains,
    By,
    Keys,
    by_weight,
    mean,
    nearest,
    numbers,
)
from page_data import page_data

pytestmark = pytest.mark.browser

# ---------------------------------------------------------------------------- routes


def ranked(page, selector):
    return list(zip(page.texts(f"{selector} .link"), page.texts(f"{selector} .number"), strict=True))


def test_a_task_shows_its_nearest_tasks_in_every_run(page):
    data = page_data(n_tasks=30)
    page.open(data)
    page.click('.row-name[data-task="7"]')
    assert page.texts("#detail h2") == [data["tasks"][7]["name"]]
    for run in (0, 1):
        assert ranked(page, f'#detail .ranked[data-run="{run}"]') == nearest(data, 7, run)
    marked = "return [...document.querySelectorAll('.maps figure:first-child .is-near')].map(row => "
    order = page.js(marked + "[row.querySelector('.rank').textContent, row.querySelector('button').title])")
    assert [name for _, name in sorted(order)] == [name for name, _ in nearest(data, 7)[:8]]
    features = data["tasks"][7]["features"]
    assert page.texts("#detail .chips li") == features
    assert len(page.cells("#detail", 0)) == 4  # two runs, two parts
    page.click("#detail .detail-head button")
    assert not page.shown("#detail")
    assert not page.shown(".is-near")


def test_an_expert_shows_exactly_its_tasks_by_weight(page):
    data = page_data(n_tasks=30)
    page.open(data)
    page.click('.maps figure:nth-child(2) [data-column="4"]')
    assert page.texts("#detail h2") == ["enc 1, expert 1, run 2"]
    assert ranked(page, "#detail .ranked") == by_weight(data, 4, run=1)
    weights = [row[4] / WHOLE for row in data["runs"][1]["routes"]]
    assert f"{100 * mean(weights):.1f} % of all weight" in page.texts("#detail .load")[0]
    assert len(page.texts("#detail .ranked .weak")) == sum(weight < 1 / 3 for weight in weights)
    drops = data["runs"][1]["ablation"]["drops"][4]
    assert numbers(page.cells("#detail", 3))[0] == pytest.approx(mean(drops), abs=5e-4)


def test_tied_experts_do_not_count_as_first_choice(page):
    data = page_data(n_tasks=12, n_runs=1)
    for row in data["runs"][0]["routes"]:
        row[:3] = [3333, 3333, 3333]
    data["runs"][0]["routes"][5][:3] = [3333, 3334, 3333]
    page.open(data)
    choices = []
    for column in range(3):
        page.click(f'[data-column="{column}"]')
        choices += [text.split("; ")[1] for text in page.texts("#detail .load")]
    assert choices == [f"first choice of {n} of 12 tasks." for n in (0, 1, 0)]


def test_a_task_of_one_run_has_neighbours_only_in_that_run(page):
    data = page_data(n_tasks=12)
    short = data["runs"][1]
    for field in ("tasks", "routes", "nearest"):
        short[field] = short[field][3:]
    short["order"] = [task for task in short["order"] if task >= 3]
    page.open(data)
    page.click('.row-name[data-task="1"]')
    assert [bool(page.texts(f'#detail .ranked[data-run="{run}"]')) for run in (0, 1)] == [True, False]
    page.click('.maps figure:nth-child(2) .row-name[data-task="5"]')
    assert ranked(page, '#detail .ranked[data-run="1"]') == nearest(data, 5, 1)


def test_hovering_over_a_cell_shows_task_layer_expert_and_weight(page):
    data = page_data(n_tasks=12)
    page.open(data)
    box = page.js(
        "const b = document.querySelector('canvas').getBoundingClientRect(); return [b.width, b.height]"
    )
    canvas = page.driver.find_element(By.TAG_NAME, "canvas")
    row, column = 4, 5
    place = (box[0] * (column + 0.5) / 9 - box[0] / 2, box[1] * (row + 0.5) / 12 - box[1] / 2)
    ActionChains(page.driver).move_to_element_with_offset(canvas, round(place[0]), round(place[1])).perform()
    task = data["tasks"][row]
    weight = data["runs"][0]["routes"][row][column] / WHOLE
    assert page.texts("#tip *") == [
        task["name"], f"enc 1, expert 2, weight {weight:.3f}", f"{task['category']}: {task['subcategory']}",
    ]  # fmt: skip
    ActionChains(page.driver).move_to_element(page.driver.find_element(By.TAG_NAME, "h1")).perform()
    assert not page.shown("#tip")


# Read from a copy: the browser warns if a canvas is both drawn on and read.
PIXELS = """
const {width, height} = document.querySelector("canvas");
const pen = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
pen.drawImage(document.querySelector("canvas"), 0, 0);
return arguments[0].map(([x, y]) => [...pen.getImageData(x * width, y * height, 1, 1).data].slice(0, 3));
"""


def pixels(page, places):
    """Returns [red, green, blue] of the first map at places given as shares of its width and height."""
    return page.js(PIXELS, places)


def test_the_canvas_shows_the_weights(page):
    data = page_data(n_tasks=12, n_runs=1)
    data["runs"][0]["routes"][2][:3] = [0, 10_000, 5000]
    page.open(data)
    shares = [((column + 0.5) / 9, 2.5 / 12) for column in range(3)]
    assert pixels(page, shares) == [[247, 251, 255], [8, 48, 107], [107, 174, 214]]


def test_the_map_can_be_used_with_the_keyboard_only(page):
    data = page_data(n_tasks=12)
    names = [task["name"] for task in data["tasks"]]
    routes = data["runs"][0]["routes"]
    page.open(data)
    for _ in range(40):
        page.type(Keys.TAB)
        if page.js("return document.activeElement.role") == "gridcell":
            break
    assert page.focused() == f"{names[0]}, enc 0, expert 0, weight {routes[0][0] / WHOLE:.3f}"
    page.type(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.focused() == f"{names[2]}, enc 1, expert 0, weight {routes[2][3] / WHOLE:.3f}"
    assert page.shown("#tip")
    page.type(Keys.ENTER)
    assert page.texts("#detail h2") == [names[2]]
    page.type("e")
    assert page.texts("#detail h2") == ["enc 1, expert 0, run 1"]
    page.type(Keys.ESCAPE)
    assert not page.shown("#detail")
    page.type(Keys.END)
    assert page.focused() == f"{names[2]}, dec 0, expert 2, weight {routes[2][8] / WHOLE:.3f}"
    page.type(Keys.HOME, Keys.ARROW_LEFT)
    assert page.focused() == names[2]
    page.type(Keys.ARROW_UP, Keys.ENTER)
    assert page.texts("#detail h2") == [names[1]]
    page.type(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ENTER)
    assert page.texts("#detail h2") == ["enc 0, expert 1, run 1"]
    # Only one of its names, heads and cells is in the tab order.
    assert page.js("return document.querySelector('.map').querySelectorAll('[tabindex=\"0\"]').length") == 1


def test_the_first_tap_shows_the_tip_and_the_second_selects(page):
    data = page_data(n_tasks=12)
    page.open(data, PHONE, mobile=True)
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page.js("document.querySelector('.map-figure').scrollIntoView()")
        box = page.js("return document.querySelector('canvas').getBoundingClientRect().toJSON()")
        point = {"x": round(box["left"] + 20), "y": round(box["top"] + 50)}

        def tap():
            page.driver.execute_cdp_cmd(
                "Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]}
            )
            page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        tap()
        page.wait("return !document.getElementById('tip').hidden")
        assert not page.shown("#detail")
        tap()
        page.wait("return !document.getElementById('detail').hidden")
    finally:
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_tasks_can_be_ordered_by_similarity_of_routes(page):
    data = page_data(n_tasks=12)
    data["runs"][1]["order"] = [3, 2, 1, 0, *range(4, 10)]
    data["runs"][1] |= {field: data["runs"][1][field][:10] for field in ("tasks", "routes", "nearest")}
    page.open(data)
    rows = (
        "return [...document.querySelector('.map').querySelectorAll('.row-name')].map(n => +n.dataset.task)"
    )
    page.choose("#map-order", "0")
    assert page.js(rows) == data["runs"][0]["order"]
    first, second = (page.labels(f".maps figure:nth-child({n}) .row-name") for n in (1, 2))
    assert [name for name in first if name in second] == second  # all maps have the same order
    page.choose("#map-order", "1")
    assert page.js(rows) == [*data["runs"][1]["order"], 10, 11]  # tasks of other runs come last
    page.choose("#map-order", "kind")
    assert page.js(rows) == list(range(12))


# ---------------------------------------------------------------------------- appearance


def test_only_tables_and_maps_scroll_sideways_on_a_phone(page):
    data = page_data(n_tasks=30, encoder_layers=6, decoder_layers=6, names={2: "n" * 300})
    data["title"] = "t" * 200
    data["runs"][0]["command"] = "c" * 400
    data["runs"][0]["name"] = "r" * 120
    page.open(data, PHONE)
    page.js("document.querySelectorAll('details').forEach(node => { node.open = true })")
    width = "return document.documentElement.scrollWidth"
    assert page.js(width) <= 390
    page.click('.row-name[data-task="2"]')
    assert page.js(width) <= 390
    assert page.js(
        "const box = document.querySelector('.map-scroll'); return box.scrollWidth > box.clientWidth"
    )
    boxes = (
        "return [...document.querySelectorAll('.map-figure')].map(n => n.getBoundingClientRect().toJSON())"
    )
    first, second = page.js(boxes)
    assert second["top"] >= first["bottom"]
    page.open(data, WIDE)
    assert page.js(width) <= 1440
    first, second = page.js(boxes)
    assert second["top"] == first["top"]
    assert second["left"] >= first["right"]
    page.open(page_data(n_tasks=24, encoder_layers=2, decoder_layers=2, n_runs=3), (1280, 800))
    assert len({box["top"] for box in page.js(boxes)}) == 1  # three small maps


def luminance(colour):
    shares = [value / 255 for value in colour]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def rgb(text):
    return [float(value) for value in re.findall(r"[\d.]+", text)[:3]]


def paper(page):
    return luminance(rgb(page.js("return getComputedStyle(document.body).backgroundColor")))


def corner(page):
    """Returns the luminance of the map's first cell."""
    return luminance(pixels(page, [(0.01, 0.01)])[0])


def test_colours_follow_the_scheme_until_the_button_overrides_it(page):
    data = page_data(n_tasks=12)
    data["runs"][0]["routes"][0][0] = 0
    page.open(data, scheme="light")
    assert (paper(page) > 0.9, corner(page) > 0.9) == (True, True)
    page.prefer("dark")
    page.wait("return document.getElementById('theme').textContent === 'Light colours'")
    assert (paper(page) < 0.05, corner(page) < 0.05) == (True, True)
    page.click("#theme")
    assert (paper(page) > 0.9, corner(page) > 0.9) == (True, True)
    page.prefer("light")
    page.click("#theme")
    assert (paper(page) < 0.05, corner(page) < 0.05) == (True, True)


# Every element with text of its own, as [colour of the text, colour behind it, text].
COLOUR_PAIRS = """
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
};
const found = new Map();
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
  if (!own || !node.checkVisibility() || node.matches("script, option, optgroup")) continue;
  const style = getComputedStyle(node);
  const pair = [node instanceof SVGElement ? style.fill : style.color, behind(node)];
  found.set(pair.join(), [...pair, node.textContent.slice(0, 40)]);
}
return [...found.values()];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(page, scheme):
    page.open(page_data(n_tasks=30), scheme=scheme)
    pairs = []
    for selector in ('.row-name[data-task="4"]', '[data-column="1"]'):
        page.click(selector)
        pairs += page.js(COLOUR_PAIRS)
    assert len({tuple(pair[:2]) for pair in pairs}) > 10
    poor = []
    for ink, back, text in pairs:
        light, dark = sorted((luminance(rgb(ink)), luminance(rgb(back))), reverse=True)
        if (light + 0.05) / (dark + 0.05) < 4.5:
            poor.append((ink, back, text))
    assert poor == []


def test_heading_levels_are_in_order_and_empty_sections_are_omitted(page):
    data = page_data(n_tasks=12)
    page.open(data)
    levels = page.js("return [...document.querySelectorAll('h1, h2, h3, h4')].map(n => +n.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    targets = page.js(
        "return [...document.querySelectorAll('nav a')].map(a => document.querySelector(a.hash)?.id)"
    )
    assert targets == [
        "routes", "scores", "curves", "correlations", "recovery", "stability", "ablation", "predictions",
        "settings",
    ]  # fmt: skip
    data = page_data(n_tasks=12, n_runs=1)
    bare = dict.fromkeys(("correlations", "recovery", "ablation", "command", "git", "step"))
    data["runs"][0] |= bare | {"scores": [], "curves": [], "predictions": []}
    page.open(data)
    assert page.texts("nav a") == ["Routes", "Settings"]
    page.click('.row-name[data-task="0"]')
    page.click('[data-column="0"]')
    assert page.texts("#detail h2") == ["enc 0, expert 0"]


# ---------------------------------------------------------------------------- security and size


def test_markup_in_the_data_is_text(page):
    data = page_data(n_tasks=12, names={0: MARKUP, 1: SCRIPT_END, 2: "a\u2028b {{modules}}", 3: "\ud800"})
    data["title"] = f"{MARKUP} & {SCRIPT_END}"
    data["notes"] = [MARKUP]
    data["categories"][0]["name"] = MARKUP
    for task in data["tasks"][:5]:
        task |= {"category": MARKUP, "subcategory": SCRIPT_END, "features": [MARKUP]}
    run = data["runs"][0]
    run |= {"name": MARKUP, "command": SCRIPT_END, "settings": {MARKUP: SCRIPT_END, "__proto__": "polluted"}}
    run["layers"][0] = MARKUP
    run["curves"][0] |= {"name": MARKUP, "group": SCRIPT_END}
    run["correlations"]["rows"][0][0] = MARKUP
    run["predictions"][0]["samples"][0] = {"input": MARKUP, "answers": [SCRIPT_END], "prediction": MARKUP}
    text = page.open(data).read_text(encoding="utf-8")
    assert text.count("<script") == 3
    page.click('.row-name[data-task="0"]')
    assert page.texts("#detail h2") == [MARKUP]
    page.click('.row-name[data-task="1"]')
    assert page.texts("#detail h2") == [SCRIPT_END]
    page.click('[data-column="0"]')
    assert page.texts("#detail h2") == [f"{MARKUP}, expert 0, {MARKUP}"]
    assert page.js("return document.querySelectorAll('img').length") == 0
    assert page.js("return document.scripts.length") == 3
    assert page.driver.title == data["title"]
    assert page.texts("h1") == [data["title"]]
    held = json.loads(page.texts("#report-data")[0])
    assert held["tasks"][2]["name"] == data["tasks"][2]["name"]
    assert MARKUP in page.cells("#setting-table", 0)


def test_a_page_of_many_tasks_stays_small(page):
    """160 tasks, 12 layers, 2 runs: size of the file and number of elements (cells of a map are none)."""
    data = page_data(160, 6, 6, 3, 2, samples=("13", "21", "42", "87", "100"), n_correlations=3000)
    assert page.open(data).stat().st_size < 5e6
    for selector in ('.row-name[data-task="80"]', '[data-column="7"]'):
        page.js("document.querySelector(arguments[0]).click()", selector)
    page.choose("#map-order", "0")
    assert page.shown("#detail")
    count = "return document.querySelectorAll(arguments[0]).length"
    assert page.js(count, ".map *") < 2 * 160 * 10
    assert page.js(count, "*") < 15_000


# ---------------------------------------------------------------------------- old browsers


def test_an_unsupported_browser_shows_a_message(page):
    message = "return document.getElementById('unsupported').checkVisibility()"
    path = page.open(page_data())
    assert not page.js(message)
    without = "CSS.supports = (name, value) => !value.startsWith('light-dark')"
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": without})
    try:
        page.driver.get(path.as_uri())
        assert page.js(message)
        assert "too old to show the report" in page.texts("#unsupported")[0]
        assert page.texts("main *, nav *, header *") == []
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
