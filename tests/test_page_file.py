"""The report page as a file: what can be told of it without a browser."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest
from page_data import page_data

from routing_moe.report import page
from routing_moe.report.page import render


def test_numbers_that_json_cannot_hold_are_refused():
    data = page_data()
    data["runs"][0]["curves"][0]["values"][0] = float("nan")
    with pytest.raises(ValueError):
        render(data)


def test_the_data_is_in_the_file_as_it_was_given():
    data = page_data(names={0: "</script><b>", 1: "a\u2028b {{script}}"})
    text = render(data)
    assert text.count("</script>") == 2
    held = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(held) == data


def test_every_script_is_part_of_the_page():
    there = {file.name for file in files(page.__package__ or page.__name__).iterdir()}
    assert sorted(page.SCRIPTS) == sorted(name for name in there if name.endswith(".js"))
