"""The report page: one self-contained HTML file.

    Path("report.html").write_text(render(data), encoding="utf-8")

Style, scripts and data are written into the file, and its content security policy allows nothing else: the
page sends no request, and markup in a task's name or a prediction stays text.

The scripts are ES modules, which linters and editors understand. Browsers load no module from a file://
address, so `render` joins them into one inline module script: each after those that it imports, without
import and export lines. No build step and no Node.js is needed. All modules then share one scope, so
- imports have the form `import {a, b} from "./file.js";`,
- top-level names are unique across all files,
- imports have no cycles.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from graphlib import TopologicalSorter
from importlib.resources import files

BROWSER_CHECK = "browser_check.js"  # a classic script, which old browsers run too
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=function |const |let )", re.MULTILINE)
# "</script>" would end the data early, older parsers of scripts read the two separators as line breaks, and
# half a surrogate pair has no UTF-8.
UNSAFE = re.compile("[<\u2028\u2029\ud800-\udfff]")


def render(data: dict) -> str:
    """Returns the page of `data`, as text to write as UTF-8; `tests/page_data.py` makes such data.

    Raises ValueError if a number is NaN or infinite: unknown numbers are None.
    """
    style, check, modules = _read("style.css"), _read(BROWSER_CHECK), joined_modules()
    parts = {
        "title": html.escape(str(data["title"])),
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(check)} {_hash(modules)}",
        "style": style,
        "check": check,
        "data": _json(data),
        "modules": modules,
    }
    # In one pass, so that data holding "{{modules}}" is left alone.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def joined_modules() -> str:
    """All modules as one script, each after those that it imports.

    Raises graphlib.CycleError if modules import each other.
    """
    names = sorted(file.name for file in files(__package__).iterdir() if file.name.endswith(".js"))
    texts = {name: _read(name) for name in names if name != BROWSER_CHECK}
    imports = {name: IMPORT.findall(text) for name, text in texts.items()}
    return "\n".join(
        EXPORT.sub("", IMPORT.sub("", texts[name])) for name in TopologicalSorter(imports).static_order()
    )


def _json(data: dict) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _hash(text: str) -> str:
    """Returns how a policy names the one inline text that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
