"""The tables of measured numbers in the README and in docs/results/ are those of their CSV files.

A table of docs/results/ that no function of the project renders has a comment before it:
    <!-- table: FILE.csv; label: COLUMN; values: COLUMN ...; where: COLUMN=VALUE, ...; rows: LABEL ... -->
A file may be anywhere in docs/results/, where its name is unique.
Its first column holds the labels, and the numbers of its other cells, row by row, are the values.
"""

import math
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from routing_moe.results.comparison import comparison_markdown
from routing_moe.results.markdown import markdown_table
from routing_moe.results.overview import overview_markdown
from routing_moe.results.run_cost import in_units
from routing_moe.results.statistics import holm, mean_interval

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs/results").rglob("*.md"))
CSVS = sorted((ROOT / "docs/results").rglob("*.csv"))
FILES = {path.name: path for path in CSVS}
MARKER = re.compile(r"<!-- table: ([^>]*?) -->\n(?:```\n)?((?:\|.*\n)+)")
COMMIT = re.compile(r"(?<![\w.])[0-9a-f]{7}(?!\w)")  # as git abbreviates them
FIRST_RELEASE = "274aef8"  # 0.1.0
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.(\d+))?(?:e[-+]?\d+)?(?!\w)")


# ---- tables that functions of the project render


def comparison(baseline: str):
    """Returns a function that renders comparison.csv of compare_runs."""
    return lambda path: comparison_markdown(pd.read_csv(path).astype({"n": "Int64"}), baseline)


def overview(path: Path) -> str:
    return overview_markdown(pd.read_csv(path))


def costs(path: Path) -> str:
    """The costs of training by variant, in units."""
    table = pd.read_csv(path, index_col="variant")
    large = ("active_parameters", "total_parameters", "flops_per_example", "total_flops")
    shown = {name: table[name].map(lambda number: in_units(number).strip()) for name in large}
    shown |= {name: table[name].map("{:.0f}".format) for name in ("steps", "selected_step")}
    shown["expert_distance"] = table["expert_distance"].map("{:.2g}".format).replace("nan", "-")
    shown = pd.DataFrame(shown | {"n": table["n"].astype(str)})[table.columns]
    names = dict(steps="total steps", total_flops="total FLOPs", flops_per_example="FLOPs per example")
    names |= dict(selected_step="selected", expert_distance="distance of experts")
    shown.columns = [names.get(name, name.replace("_", " ")) for name in shown]
    return markdown_table(shown)


def coverage(path: Path) -> str:
    """The rows of each size: by design, coverage in each case and the mean width of the first."""
    table, lines = pd.read_csv(path), []
    for size, rows in table.groupby(["seeds", "tasks", "seed_std"], sort=False):
        cells = []
        for design in table["design"].unique():
            own = rows[rows["design"] == design]
            shares = " ".join(f"{value:.3f}" for value in own["coverage"])
            cells.append(f"{shares} ({own['mean_width'].iloc[0]:.2f})" if len(own) else "-")
        lines.append(f"| {' | '.join([*map(str, size), *cells])} |")
    return "\n".join(lines)


RENDERED = {  # {file: (page, function of the file's path)}
    "compare_routings.csv": ("compare_routings.md", comparison("multitask")),
    "compare_routings_equal_flops.csv": ("compare_routings.md", comparison("multitask")),
    "compare_routings_cost.csv": ("compare_routings.md", costs),
    "coverage.csv": ("coverage.md", coverage),
    **{name: ("conflict_refined.md", overview) for name in sorted(FILES) if name.endswith("_overview.csv")},
}

# ---- tables with a comment


def marked_tables() -> list:
    return [
        pytest.param(*table.groups(), id=f"{page.name}-{number}")
        for page in PAGES
        for number, table in enumerate(MARKER.finditer(page.read_text(encoding="utf-8")))
    ]


def read_table(marker: str) -> tuple[pd.DataFrame, str, list[str]]:
    """The rows of the CSV that a marker names, the column of labels, the columns of values."""
    file, *parts = (part.strip() for part in marker.split(";"))
    options = dict(part.split(": ", 1) for part in parts)
    table = pd.read_csv(FILES[file], dtype={options["label"]: str})
    if "where" in options:
        for column, value in (condition.split("=") for condition in options["where"].split(", ")):
            table = table[table[column] == value]
    if "rows" in options:  # of these labels only
        table = table[table[options["label"]].isin(options["rows"].split())]
    return table, options["label"], options["values"].split()


def differences(lines: list[str], table: pd.DataFrame, label: str, values: list[str]) -> list[str]:
    """What a Markdown table's body says otherwise than the rows of its CSV."""
    rows = [[cell.strip().replace("`", "") for cell in line.strip(" |").split("|")] for line in lines]
    expected_labels = list(dict.fromkeys(table[label]))
    labels = [row[0] for row in rows]
    if labels != expected_labels:
        return [f"labels {labels}, in the file {expected_labels}"]
    printed = [number for row in rows for cell in row[1:] for number in NUMBER.finditer(cell)]
    return wrong_numbers(
        printed, [value for value in table[values].to_numpy().ravel() if not math.isnan(value)]
    )


def wrong_numbers(printed: list[re.Match], expected: list[float]) -> list[str]:
    """What numbers say otherwise than their rounded values."""
    if len(printed) != len(expected):
        return [f"{len(printed)} numbers, in the file {len(expected)}"]
    return [
        f"{number.group()}, in the file {value}"
        for number, value in zip(printed, expected, strict=True)
        if not math.isclose(float(number.group()), value, rel_tol=1e-9, abs_tol=half_of_last_digit(number))
    ]


def half_of_last_digit(number: re.Match) -> float:
    """What rounding may hide: 0.005 of 0.12, 0 of 1e-4."""
    return 0.0 if "e" in number.group() else 0.501 * 10.0 ** -len(number.group(1) or "")


LOSS = "shots == 'few_shot' and measure == 'answer_loss' and design == 'tasks'"
UNSEEN = LOSS + " and variant == 'straight_through' and minus == 'multitask'"
INTERVAL = ["difference", "low", "high"]
# {first words of a row of the README: the numbers in its second cell: (file, row, columns, factor)}
MEASURED = {
    "Generated tasks, half": [
        ("methods.csv", f"method == '{method}'", ["test"], 100)
        for method in [
            "cross_loss",
            "softmax",
            "true_groups",
            "random_groups",
            "dense_total",
            "dense_flops",
            "straight_through",
        ]
    ]
    + [
        ("methods_width.csv", f"method == '{method}'", ["test_32"], 100)
        for method in ("dense_flops", "cross_loss")
    ],
    "16 adapters of other": [
        ("pretrained_adapters.csv", f"method == '{method}'", ["rank_accuracy"], 1)
        for method in ("new", "mixed", "lowest_loss", "tuned", "mean", "base")
    ],
    "8 tasks and twins": [
        ("pretrained_twins.csv", f"part == 'twins' and arm == '{arm}'", ["rank_accuracy"], 1)
        for arm in ("true_groups", "random_groups", "per_task", "one_128", "cross_loss", "random_found")
    ],
    "80 real tasks": [
        (
            "real_tasks.csv",
            "contrast.str.startswith('open answers: a low-rank expert') and claim == 'gain'",
            order,
            -1,
        )
        for order in (["difference"], ["high"], ["low"])
    ],
    "Do learned routes help": [
        ("real_tasks.csv", "contrast == 'learned routes minus one BART'", INTERVAL, 1),
        ("real_tasks.csv", "contrast == 'learned routes minus random routes'", ["difference"], 1),
        ("real_routes_unseen.csv", UNSEEN, INTERVAL, 1),
    ],
}
OTHERS = {"Do learned routes help": [2.6]}  # the paper
LEFT_OUT = re.compile(
    r"1.8 times the FLOPs|of 12 times the parameters|BARTs of 15,376 parameters|5 gyms|SmolLM2-135M"
    r"|25 unseen tasks|2 seeds|chance 0.3[29]"
)


@pytest.mark.parametrize("question", MEASURED)
def test_the_measured_numbers_of_the_readme_are_those_of_their_files(question):
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| {question}")]
    expected = []
    for file, query, columns, factor in MEASURED[question]:
        (values,) = pd.read_csv(FILES[file]).query(query)[columns].to_numpy()
        expected += list(factor * values)
    found = list(NUMBER.finditer(LEFT_OUT.sub("", row.split("|")[2])))
    assert wrong_numbers(found, expected + OTHERS.get(question, [])) == []


def test_the_table_of_the_readme_is_that_of_the_quickstart():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    for variant, *values in pd.read_csv(FILES["quickstart.csv"]).itertuples(index=False):
        (line,) = [line for line in lines if line.startswith(f"| {variant} ")]
        shown = [value for value in values if not math.isnan(value)]
        assert wrong_numbers(list(NUMBER.finditer(line)), shown) == []


@pytest.mark.parametrize(("marker", "table"), marked_tables())
def test_a_table_is_that_of_its_file(marker, table):
    assert differences(table.splitlines()[2:], *read_table(marker)) == []


def test_the_rows_of_the_page_on_real_tasks_are_those_of_their_sources_and_claims_follow_the_rule():
    for row in pd.read_csv(FILES["real_tasks.csv"]).itertuples():
        (source,) = pd.read_csv(FILES[row.source]).query(row.filter).to_dict("records")
        copied = ("difference", "low", "high", "detectable")
        assert [getattr(row, name) for name in copied] == [source[name] for name in copied]
        is_two_way = row.source == "real_two_way.csv"
        over = "seeds" if is_two_way else source.get("design") or source["interval"]
        n = source["seeds"] if is_two_way else source["tasks"] if over == "tasks" else source["pairs"]
        assert getattr(row, over) == n
        holds = is_two_way and row.low * row.high > 0 and source["p_holm"] < 0.05
        holds = holds and row.seeds >= 5
        is_better = row.difference < 0 if row.measure.startswith("nats") else row.difference > 0
        claim = "gain" if is_better else "worse"
        assert row.claim in ([claim] if holds else ("no claim", "exploratory", *FEWER)), row.contrast


FEWER = {f"no claim: {why}" for why in ("few seeds", "tasks alone", "one model")}


def test_intervals_over_seeds_and_tasks_are_those_of_the_scores_of_tasks():
    table = pd.read_csv(FILES["real_two_way.csv"])
    for family, rows in table.groupby("family", dropna=False):
        found = [two_way(row) for row in rows.itertuples()]
        for row, (interval, difference) in zip(rows.itertuples(), found, strict=True):
            expected = [difference, interval.low, interval.high, interval.detectable]
            assert [row.difference, row.low, row.high, row.detectable] == pytest.approx(expected, rel=1e-4)
        if isinstance(family, str):  # else exploratory
            assert list(rows["p_holm"]) == pytest.approx(
                holm([interval.p for interval, _ in found]), rel=1e-4
            )


def two_way(row):
    scores = pd.read_csv(FILES[row.source]).rename(columns={"arm": "variant"})
    if row.category != "all":
        scores = scores[scores["answers"] == row.category]
    wide = scores.pivot_table(index="seed", columns=["variant", "task"], values=row.measure)
    differences_ST = (wide[row.variant] - wide[row.minus]).dropna().to_numpy()
    assert differences_ST.shape == (row.seeds, row.tasks)
    return mean_interval(differences_ST, "seeds_and_tasks"), differences_ST.mean()


def test_differences_on_conflict_gyms_are_those_of_their_runs():
    runs = pd.read_csv(FILES["conflict_runs.csv"])
    for row in pd.read_csv(FILES["conflict_contrasts.csv"]).itertuples():
        wide = runs[runs["place"] == row.place].pivot_table(index="seed", columns="variant", values="test")
        differences = (wide[row.variant] - wide[row.minus]).dropna()
        ends = ttest_1samp(differences, 0).confidence_interval()
        assert len(differences) == row.gyms
        assert [row.difference, row.low, row.high] == pytest.approx([differences.mean(), *ends], abs=1e-5)


def test_scores_by_width_and_their_differences_are_those_of_the_runs():
    runs, table = pd.read_csv(FILES["methods_runs.csv"]), pd.read_csv(FILES["methods_width.csv"])
    seeds = runs.loc[runs["width"] == 32, "seed"].unique()
    wide = runs[runs["seed"].isin(seeds)].pivot(index="seed", columns=["method", "width"], values="test")
    over = {width: wide["cross_loss"][width] - wide.xs(width, axis=1, level="width").T for width in (16, 32)}
    for row in table.itertuples():
        assert [row.test_16, row.test_32] == pytest.approx(list(wide[row.method].mean()), abs=1e-6)
        if row.method != "cross_loss":
            change = over[32].loc[row.method] - over[16].loc[row.method]
            for differences, found in (
                (over[16].loc[row.method], (row.minus_16, row.low_16, row.high_16)),
                (over[32].loc[row.method], (row.minus_32, row.low_32, row.high_32)),
                (change, (row.change, row.change_low, row.change_high)),
            ):
                ends = ttest_1samp(differences, 0).confidence_interval()
                assert found == pytest.approx((differences.mean(), *ends), abs=1e-5)


def test_a_name_stands_for_one_file():
    assert len(FILES) == len(CSVS)


@pytest.mark.parametrize("file", RENDERED)
def test_a_rendered_table_is_that_of_its_file(file):
    page, rendered = RENDERED[file]
    assert rendered(FILES[file]).strip() in FILES[file].with_name(page).read_text(encoding="utf-8")


def test_every_page_has_its_provenance_and_all_tables_are_marked_or_rendered():
    pages = [page for page in PAGES if page.name != "README.md"]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    for fact in ("command", "commit", "machine", "n", "CSV"):
        assert {name for name, text in texts.items() if f"| {fact} |" not in text} == set()
    for path in PAGES:  # a new table without a marker would be compared with nothing
        text = path.read_text(encoding="utf-8")
        numeric = re.findall(r"^\|[-: |]*-:[-: |]*\|$", text, flags=re.MULTILINE)  # a column aligned right
        rendered = sum(page == path.name for page, _ in RENDERED.values())
        assert len(numeric) == len(MARKER.findall(text)) + rendered, path.name


def test_every_page_names_a_commit_and_the_commits_named_exist():
    """A result page is history: the code of its study may have left the main branch."""
    pages = [page for page in PAGES if page.name != "README.md"]
    others = [FILES["real_commands.csv"], ROOT / "docs/data.md"]
    named = {path: set(COMMIT.findall(path.read_text(encoding="utf-8"))) for path in [*pages, *others]}
    assert [path.name for path, commits in named.items() if not commits] == []
    assert set().union(*named.values()) - history() == set()


def history() -> set[str]:
    """Returns the first seven digits of all commits; skips the test where they are not here."""
    listed = subprocess.run(
        ["git", "rev-list", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commits = {commit[:7] for commit in listed.stdout.split()}
    if FIRST_RELEASE not in commits:
        pytest.skip("not in a git repository with the history of the measurements")
    return commits


def test_methods_of_the_pre_trained_model_and_their_contrasts_are_those_of_the_runs():
    runs = pd.read_csv(FILES["pretrained_adapters_runs.csv"]).query("method != 'candidate'")
    means = runs.groupby(["task", "method"])[["rank_accuracy", "loss"]].mean().unstack()
    table = pd.read_csv(FILES["pretrained_adapters.csv"], index_col="method")
    assert list(table.index) == list(table["loss"].sort_values().index)
    for row in table.itertuples():
        assert [row.rank_accuracy, row.loss] == pytest.approx(
            [means[name][row.Index].mean() for name in ("rank_accuracy", "loss")], abs=1e-5
        )
    contrasts = pd.read_csv(FILES["pretrained_contrasts.csv"]).query("part == 'adapters'")
    for row in contrasts.itertuples():
        one, other = row.contrast.split(" - ")
        differences = means[row.measure][one] - means[row.measure][other]
        ends = ttest_1samp(differences, 0).confidence_interval()
        assert (row.difference, row.low, row.high) == pytest.approx((differences.mean(), *ends), abs=1e-5)
    assert list(contrasts["p_holm"]) == pytest.approx(holm(contrasts["p"]), abs=1e-5)
