"""The report page: one self-contained HTML file with the charts of charts.py.

    Path("report.html").write_text(render(data), encoding="utf-8")

Vega, Vega-Lite and vega-embed are written into the file. Its content security policy forbids all requests.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files

import altair
import vl_convert

from routing_moe.report.page.charts import charts
from routing_moe.report.page.tables import sections

# 'unsafe-eval': Vega compiles the expressions of a specification.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"


def render(data: dict) -> str:
    """Returns the page of `report_data`, as text to write as UTF-8.

    Raises ValueError if a number of a chart is NaN or infinite: unknown numbers are None.
    """
    specs = charts(data)
    parts = sections(data, specs)
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in parts)
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in data["notes"])
    body = "".join(
        f'<section id="{title.lower()}"><h2>{title}</h2>{text}</section>' for title, text in parts.items()
    )
    rows = json.dumps({"tasks": data["tasks"], "charts": specs}, allow_nan=False, separators=(",", ":"))
    rows = rows.replace("<", "\\u003c")  # "</script>" would end the data early
    title, version = html.escape(data["title"]), ".".join(altair.SCHEMA_VERSION.strip("v").split(".")[:2])
    page = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_read("style.css")}</style>
</head>
<body>
<h1>{title}</h1>
<noscript><p class="note">The charts of this page need JavaScript.</p></noscript>
{notes}
<nav>{links}</nav>
{body}
<script>{vl_convert.javascript_bundle(vl_version=version)}</script>
<script type="application/json" id="report-data">{rows}</script>
<script>{_read("linked.js")}</script>
</body>
</html>
"""
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair has no UTF-8


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
