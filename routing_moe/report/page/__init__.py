"""The report page: one HTML file that needs nothing but itself.

    Path("report.html").write_text(render(data), encoding="utf-8")

Style, scripts and data are written into the file, and its content security policy lets nothing else in: no
request leaves the page, and markup in a task's name or a prediction is text, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files

# One strict function holds them all, in this order: constants are used below where they are made.
SCRIPTS = (
    "dom.js",
    "colour.js",
    "model.js",
    "state.js",
    "print.js",
    "table.js",
    "map.js",
    "map_input.js",
    "routes.js",
    "detail.js",
    "scores.js",
    "chart.js",
    "curves.js",
    "findings.js",
    "ablation.js",
    "ablation_tables.js",
    "predictions.js",
    "settings.js",
    "start.js",
)
# "</script>" would end the data early, the two separators are line breaks to older parsers of scripts, and
# half a surrogate pair has no UTF-8.
UNSAFE = re.compile("[<\u2028\u2029\ud800-\udfff]")


def render(data: dict) -> str:
    """The page that shows `data`, as text to be written as UTF-8; `tests/page_data.py` makes such data.

    Raises ValueError if a number is NaN or infinite: what is not known is None.
    """
    style, script = _read("style.css"), _script()
    parts = {
        "title": html.escape(str(data["title"])),
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}",
        "style": style,
        "data": _json(data),
        "script": script,
    }
    # In one pass, so that data holding "{{script}}" is left alone.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def _script() -> str:
    return "(() => {\n'use strict';\n" + "\n".join(_read(name) for name in SCRIPTS) + "\n})();\n"


def _json(data: dict) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _hash(text: str) -> str:
    """How a policy names the one inline text that it lets in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
