"""Shared by the tests of the report page: a browser, and the expected values.

Selenium opens the page in chromium from a file:// address; without either, these tests are skipped.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager, suppress

import pytest

from routing_moe.report.page import render

pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and CHROMEDRIVER):
    pytest.skip("chromium and chromedriver, which show the page, are not installed", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.options import Options  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402, F401

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WIDE, PHONE = (1440, 900), (390, 844)
MARKUP = '<img src=x onerror="document.title=1">'
SCRIPT_END = "</script><script>document.title=2</script>"


def started_browser(profile):
    """Yields a headless chromium with a new profile; it is closed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):  # the driver is on this machine
            patch.setenv(name, "localhost,127.0.0.1")
        options = Options()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        yield driver
        with suppress(WebDriverException):
            driver.quit()


class Page:
    """Short methods for what the tests do with a page."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder
        self.js = driver.execute_script

    def open(self, data, size=WIDE, scheme="light", mobile=False):
        path = self.folder / "report.html"
        path.write_text(render(data), encoding="utf-8")
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.prefer(scheme)
        self.driver.get(path.as_uri())
        self.wait("return performance.getEntriesByName('drawn').length > 0")
        self.js("document.documentElement.style.scrollBehavior = 'auto'")
        return path

    def wait(self, script, seconds=10):
        until = time.monotonic() + seconds
        while not self.js(script):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.02)

    def prefer(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def click(self, selector):
        """Scrolls to the element and clicks on it."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def texts(self, selector):
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)", selector
        )

    def labels(self, selector):
        """Returns the accessible names, which a map does not shorten."""
        script = "return [...document.querySelectorAll(arguments[0])].map(node => node.ariaLabel)"
        return self.js(script, selector)

    def shown(self, selector):
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].some(n => n.checkVisibility())", selector
        )

    def cells(self, table, column):
        """Returns the texts of one column of a table's body."""
        script = (
            "return [...document.querySelectorAll(`${arguments[0]} tbody tr`)]"
            ".map(row => row.cells[arguments[1]].textContent)"
        )
        return self.js(script, table, column)

    def sort(self, table, column):
        self.click(f"{table} thead tr:last-child th:nth-child({column + 1}) button")
        return self.js(
            "return document.querySelector(arguments[0]).ariaSort",
            f"{table} thead tr:last-child th:nth-child({column + 1})",
        )

    def type(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def fill(self, selector, text):
        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def choose(self, selector, value):
        script = (
            "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
            "node.dispatchEvent(new Event('change'))"
        )
        self.js(script, selector, value)

    @contextmanager
    def touch(self):
        """Yields tap(selector), a touch in the middle of an element."""

        def tap(selector):
            box = self.js(
                "const node = document.querySelector(arguments[0]); node.scrollIntoView({block: 'center'});"
                "return node.getBoundingClientRect().toJSON()",
                selector,
            )
            point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
            for kind, points in (("touchStart", [point]), ("touchEnd", [])):
                event = {"type": kind, "touchPoints": points}
                self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", event)

        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        try:
            yield tap
        finally:
            self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})

    def focused(self):
        return self.js("return document.activeElement.ariaLabel ?? document.activeElement.textContent")

    def complaints(self):
        return [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


# ---------------------------------------------------------------------------- expected values, from the data


WHOLE = 10_000  # routes hold weights in ten-thousandths


def nearest(data, task, run=0):
    """Returns [(name, overlap with three digits), ...], most similar first."""
    run = data["runs"][run]
    return [
        (data["tasks"][other]["name"], f"{value:.3f}")
        for other, value in run["nearest"][run["tasks"].index(task)]
    ]


def by_weight(data, column, run=0):
    run = data["runs"][run]
    rows = sorted(zip(run["tasks"], run["routes"], strict=True), key=lambda pair: -pair[1][column])
    return [(data["tasks"][task]["name"], f"{route[column] / WHOLE:.3f}") for task, route in rows]


def numbers(texts):
    """Returns the texts as numbers; unknown values are None."""
    return [None if text == "–" else float(text.replace("−", "-")) for text in texts]


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values)
