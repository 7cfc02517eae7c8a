"""The report page of two runs in a browser: it renders, its charts are linked, and it sends no request.

Selenium opens the page in chromium from a file:// address; without either, these tests are skipped.
"""

import shutil
import time
from contextlib import suppress

import pandas as pd
import pytest
from planted_routes import NAMES, write_place

from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.route_tables import neighbour_table
from routing_moe.analysis.runs import read_runs
from routing_moe.analysis.saved_routes import load_routes
from routing_moe.cli import report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is missing")
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and CHROMEDRIVER):
    pytest.skip("chromium and chromedriver, which show the page, are not installed", allow_module_level=True)

from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
MARKUP = '<img src=x onerror="document.title=1">'
SECTIONS = [
    "Routes", "Scores", "Curves", "Correlations", "Recovery", "Ablation", "Settings",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with scores, of which the first was ablated; markup in every kind of text."""
    place = write_place(tmp_path_factory.mktemp("runs"), ("moe", "other"))
    place.write(place.gym / "skills.csv", (place.gym / "skills.csv").read_text().replace("spell", MARKUP))
    columns = ["layer", "expert", "task", "category", "weight", "before", "after", "drop"]
    for name in ("moe", "other"):
        folder = place.folder / name
        (folder / "best").mkdir(exist_ok=True)
        rows = [(task, f"{task}_1", "EM", n / 10, 4, 0.05) for n, task in enumerate(NAMES)]
        names = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
        pd.DataFrame(rows, columns=names).to_csv(folder / "best/eval-test-performance.csv")
    ablation = place.folder / "moe" / "analysis" / "ablation"
    ablation.mkdir(parents=True)
    drops = [("dec 0", 1, task, "words", 0.3, 0.8, 0.8 - n / 10, n / 10) for n, task in enumerate(NAMES)]
    pd.DataFrame(drops, columns=columns).to_csv(ablation / "tasks.csv", index=False)
    return [place.folder / name for name in ("moe", "other")]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The browser with the page of both runs. Asserts at the end that there was no message and no request."""
    path = runs[0].parent / "report.html"
    words = ["--permutations", "20", "--title", f"{MARKUP} & more", "--output_file", str(path)]
    assert report.main([*map(str, runs), *words]) == 0
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):  # the driver is on this machine
            patch.setenv(name, "localhost,127.0.0.1")
        driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        try:
            driver.get(path.as_uri())
            wait(driver, "return performance.getEntriesByName('drawn').length > 0")
            yield driver
            assert driver.get_log("browser") == []
            assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
        finally:
            with suppress(WebDriverException):
                driver.quit()


def wait(driver, script, seconds=10):
    until = time.monotonic() + seconds
    while not driver.execute_script(script):
        assert time.monotonic() < until, f"never true: {script}"
        time.sleep(0.02)


def texts(driver, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)"
    return driver.execute_script(script, selector)


def labels(driver, chart, *parts):
    """Returns the accessible names of the marks of a chart that contain all parts."""
    script = "return [...document.querySelectorAll(arguments[0])].map(node => node.ariaLabel)"
    names = driver.execute_script(script, f"#{chart}-chart [aria-label]")
    return [name for name in names if name and all(part in name for part in parts)]


def tasks_from_the_top(driver, selector):
    script = "return [...document.querySelectorAll(arguments[0])]"
    script += ".map(node => [node.getBoundingClientRect().top, node.textContent])"
    rows = sorted(driver.execute_script(script, selector))
    return [text for _, text in rows if text in NAMES]


def test_all_sections_are_shown_and_markup_is_text(page):
    assert texts(page, "h2") == texts(page, "nav a") == SECTIONS
    assert page.title == f"{MARKUP} & more"
    assert texts(page, "h1") == [page.title]
    assert page.execute_script("return document.querySelectorAll('img').length") == 0
    charts = page.execute_script("return [...document.querySelectorAll('svg')].map(n => n.parentNode.id)")
    names = ["routes", "nearest", "load", "scores", "curves", "correlations", "ablation"]
    assert charts == [f"{name}-chart" for name in names]
    assert any("skill:<img src" in text for text in texts(page, "#correlations-chart text"))


def test_a_map_has_the_weights_of_its_run(page, runs):
    for run in runs:
        routes = load_routes(run)
        weight = routes.values_NLE[routes.tasks.index("mice"), 1, 2]
        parts = ("layer: dec 0", "expert: 2", "task: mice", f"weight: {weight:.4f}", "category: words")
        assert labels(page, "routes", *parts)


def test_a_chosen_cell_is_marked_everywhere_and_its_task_described(page, runs):
    cell = next(name for name in labels(page, "routes", "task: one;", "layer: dec 0", "expert: 1"))
    click = "document.querySelector(`[aria-label=${CSS.escape(arguments[0])}]`).dispatchEvent("
    page.execute_script(f"{click}new MouseEvent('click', {{bubbles: true}}))", cell)
    wait(page, "return views.every(view => view.signal('chosen_task') === 'one')")
    assert page.execute_script("return views.map(view => view.signal('chosen_layer'))") == ["dec 0"] * 7
    assert texts(page, "#nearest-chart .role-title text")[0].startswith("Nearest to one")
    assert len(labels(page, "load", "layer: dec 0")) == len(labels(page, "load", "layer: ")) > 0
    assert any("mean: 0.4000" in name for name in labels(page, "ablation", "group: chosen task"))
    (run, _) = read_runs(runs)
    table = neighbour_table(run.routes, overlap(run.routes.values_NLE), run.ontology, len(NAMES))
    expected = table[table["task"] == "one"]["neighbour"].tolist()
    assert tasks_from_the_top(page, "#nearest-chart .role-axis-label text")[: len(expected)] == expected


def test_tasks_can_be_ordered_by_the_routes_of_a_run(page):
    order = "const rows = JSON.parse(document.getElementById('report-data').textContent).tasks; "
    order += "return rows.sort((a, b) => a.ranks[2] - b.ranks[2]).map(row => row.task)"
    expected = page.execute_script(order)
    choose = "const node = document.querySelector('#routes-chart select'); node.value = 2; "
    page.execute_script(f"{choose}node.dispatchEvent(new Event('change'))")
    page.execute_script("return Promise.all(views.map(view => view.runAsync())).then(() => 1)")
    assert tasks_from_the_top(page, "#routes-chart .mark-text text") == expected
