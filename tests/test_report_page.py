"""The report page: its charts have the numbers of the runs' files; in a browser it sends no request.

Selenium opens the page in chromium from a file:// address; without either, these tests are skipped.
"""

import hashlib
import json
import re
import shutil
from contextlib import suppress

import pandas as pd
import pytest
from forks import wait_until
from planted_routes import NAMES, write_place

from routing_moe.analysis.correlation import correlate
from routing_moe.analysis.route_metrics import neighbour_table, overlap
from routing_moe.analysis.runs import read_runs
from routing_moe.analysis.saved_routes import load_routes
from routing_moe.cli import report
from routing_moe.report.page import drops_of, render

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
MARKUP = '<img src=x onerror="document.title=1">'


def rows_of(page: str, *fields: str) -> pd.DataFrame:
    """Returns the rows of all charts of a page that have these fields."""
    spec = json.loads(re.search(r'id="spec">(.*?)</script>', page, re.DOTALL)[1])
    tables = [rows for rows in values_in(spec) if set(fields) <= set(rows[0])]
    return pd.concat(map(pd.DataFrame, tables))


def values_in(spec):
    """Yields the values of all data in a specification."""
    for key, value in spec.items() if isinstance(spec, dict) else enumerate(spec):
        if key in ("datasets", "values") and value:
            yield from value.values() if isinstance(value, dict) else [value]
        elif isinstance(value, dict | list):
            yield from values_in(value)


def test_routes_scores_and_curves_are_those_of_the_files_of_a_trained_run(finished, without_chart_library):
    trained_page = render(read_runs([finished]), "Routes of finished")
    routes, shown = load_routes(finished), rows_of(trained_page, "task", "expert", "weight")
    of_count = shown[shown["task"] == "count"]["weight"].tolist()
    assert of_count == pytest.approx(routes.values_NLE[routes.tasks.index("count")].ravel(), abs=1e-4)
    written = pd.read_csv(finished / "best" / "eval-test-performance.csv").set_index("task_prefix")
    shown = rows_of(trained_page, "score")
    shown = shown[shown["files"] == "test, train tasks"].set_index("task")
    assert shown["score"].to_dict() == pytest.approx(written["performance"].to_dict(), abs=1e-4)
    shown, losses = rows_of(trained_page, "curve"), pd.read_csv(finished / "losses.csv")
    dev = shown[shown["curve"] == "dev loss"]
    assert dev["step"].tolist() == losses["steps"].tolist()
    assert dev["value"].tolist() == pytest.approx(losses["dev_loss"].tolist(), rel=1e-4)
    assert {"load entropy", "distance to final", "learning rate"} <= set(shown["curve"])


def test_correlations_and_drops_are_those_of_the_run_unless_the_ablation_is_of_other_weights(
    tmp_path, without_chart_library
):
    place = write_place(tmp_path).folder / "one"
    write_ablation(place)
    (run,) = read_runs([place], "30")
    page = render([run], "x")
    assert "routes are of step 30, but scores of step 20" in page
    shown = rows_of(page, "feature", "r")
    assert (shown["r"] < 0).any()
    for feature, rows in correlate(run.routes, run.features, 0).groupby("feature"):
        strongest = rows["r"].abs().nlargest(3).tolist()
        assert shown[shown["feature"] == feature]["r"].abs().nlargest(3).tolist() == pytest.approx(strongest)
    assert rows_of(page, "drop")[["expert", "category", "drop"]].to_numpy().tolist() == DROPS
    (place / "best/model.safetensors").write_bytes(b"other weights")
    assert len(drops_of(run)) == 0


DROPS = [["enc0.1", "words", 0.25], ["enc0.1", "all", 0.125]]


def write_ablation(run):
    folder = run / "analysis" / "ablation"
    folder.mkdir(parents=True)
    rows = [("enc 0", 1, category, 6, 2, drop, None) for _, category, drop in DROPS]
    columns = ["layer", "expert", "category", "tasks", "users", "drop", "others"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "categories.csv", index=False)
    (run / "best/model.safetensors").write_bytes(b"weights")
    checkpoint = {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    (folder / "job.json").write_text(json.dumps({"checkpoint_name": "best", "checkpoint": checkpoint}))


# ---- in a browser


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with scores, of which the first was ablated; markup in every kind of text."""
    place = write_place(tmp_path_factory.mktemp("runs"), ("moe", "other"))
    place.write(place.gym / "skills.csv", (place.gym / "skills.csv").read_text().replace("spell", MARKUP))
    for name in ("moe", "other"):
        folder = place.folder / name
        (folder / "best").mkdir(exist_ok=True)
        rows = [(task, f"{task}_1", "EM", n / 10, 4, 0.05) for n, task in enumerate(NAMES)]
        names = ["task_prefix", "sample", "metric", "performance", "n", "constant"]
        pd.DataFrame(rows, columns=names).to_csv(folder / "best/eval-test-performance.csv")
    write_ablation(place.folder / "moe")
    return [place.folder / name for name in ("moe", "other")]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The browser with the page of both runs. Asserts at the end that there was no message and no request."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing")
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    path = runs[0].parent / "report.html"
    words = ["--title", f"{MARKUP} & more", "--output_file", str(path)]
    assert report.main([*map(str, runs), *words]) == 0
    assert path.stat().st_size < 2e6
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
            drawn = "return performance.getEntriesByName('drawn').length > 0"
            wait_until(lambda: driver.execute_script(drawn), 10)
            yield driver
            assert driver.get_log("browser") == []
            assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
        finally:
            with suppress(WebDriverException):
                driver.quit()


def texts(driver, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)"
    return driver.execute_script(script, selector)


@pytest.mark.browser
def test_the_page_shows_all_charts_and_markup_is_text(page):
    assert page.title == f"{MARKUP} & more"
    assert texts(page, "h1") == [page.title]
    assert page.execute_script("return document.querySelectorAll('img').length") == 0
    titles = " ".join(texts(page, ".role-title text"))
    for title in ("Routes of moe", "Nearest", "Load in other", "Scores", "dev loss", "correlations", "drop"):
        assert title in titles
    assert any("skill:<img src" in text for text in texts(page, "svg text"))


@pytest.mark.browser
def test_a_click_on_a_cell_chooses_its_task_and_its_layer(page, runs):
    click = 'document.querySelector(\'[aria-label*="task: one"][aria-label*="expert: dec0.1"]\')'
    page.execute_script(f"{click}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    some = "some(node => node.textContent === 'dec0.0')"
    found = f"return [...document.querySelectorAll('svg text')].{some}"
    wait_until(lambda: page.execute_script(found), 10)
    (run, _) = read_runs(runs)
    table = neighbour_table(run.routes, overlap(run.routes.values_NLE), run.ontology, len(NAMES))
    expected = table[table["task"] == "one"]["neighbour"].tolist()
    script = "return [...document.querySelectorAll('[aria-label]')].map(node => node.ariaLabel)"
    bars = [label for label in page.execute_script(script) if label and "neighbour" in label]
    assert {label for label in bars if "task: one" in label} == set(bars)
    assert len(bars) == 2 * len(expected)
