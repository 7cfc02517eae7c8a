"""The report page as a file: what can be tested without a browser."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files

import pytest
from page_data import page_data

from routing_moe.report import page
from routing_moe.report.page import BROWSER_CHECK, joined_modules, render

TOP_LEVEL = re.compile(r"^(?:async function|class|const|function|let|var) (\w+)", re.MULTILINE)


def module_texts():
    scripts = [file for file in files(page.__name__).iterdir() if file.name.endswith(".js")]
    return {file.name: file.read_text(encoding="utf-8") for file in scripts if file.name != BROWSER_CHECK}


def test_nan_in_the_data_is_an_error():
    data = page_data()
    data["runs"][0]["curves"][0]["values"][0] = float("nan")
    with pytest.raises(ValueError):
        render(data)


def test_the_file_contains_the_data_unchanged():
    data = page_data(names={0: "</script><b>", 1: "a\u2028b {{modules}}"})
    text = render(data)
    assert text.count("</script>") == 3
    held = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(held) == data


def test_the_joined_script_defines_each_name_once_and_before_its_importers():
    script = joined_modules()
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    assert {name: n for name, n in Counter(TOP_LEVEL.findall(script)).items() if n > 1} == {}
    place = {name: script.index(text.split("\n", 1)[0]) for name, text in module_texts().items()}
    imported = {name: re.findall(r'from "\./(.+?)"', text) for name, text in module_texts().items()}
    assert all(place[other] < place[name] for name, others in imported.items() for other in others)
    assert set(place) - {"start.js"} == {other for others in imported.values() for other in others}


def test_the_browser_check_comes_before_the_data_and_the_modules():
    text = render(page_data())
    assert re.search(r'<p id="unsupported" class="note" hidden>[^<]* needs Chrome or Edge 123', text)
    assert '<noscript><p class="note">This report needs JavaScript' in text
    kinds = re.findall(r"<script(.*?)>", text)
    assert kinds == ["", ' type="application/json" id="report-data"', ' type="module"']
    # Syntax that browsers without modules can read, or they would show nothing.
    check = (files(page.__name__) / BROWSER_CHECK).read_text(encoding="utf-8")
    assert not re.search(r"=>|\b(const|let|class|import)\b|\?\.|`", re.sub(r"//.*", "", check))
