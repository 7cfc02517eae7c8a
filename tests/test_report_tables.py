"""The report page in a browser: sorting and filtering of tables, ablation, predictions."""

from __future__ import annotations

import pytest
from page_browser import mean, numbers
from page_data import page_data

pytestmark = pytest.mark.browser

TABLE = "#score-table"
DEV_RUN_1 = 1  # column: after the task
METRIC = 11  # after both parts' runs, difference, constant and n


def test_scores_are_sorted_by_a_column_in_both_directions(page):
    data = page_data(n_tasks=30)
    data["runs"][0]["scores"][0]["rows"][3][3] = None
    page.open(data)
    expected = [
        row[3]
        for group in data["runs"][0]["scores"]
        if group["part"] == "dev"
        for row in group["rows"]
        if row[3] is not None
    ]
    expected = [f"{value:.3f}" for value in sorted(expected)]
    assert page.sort(TABLE, DEV_RUN_1) == "descending"
    assert page.cells(TABLE, DEV_RUN_1) == [*reversed(expected), "–"]
    assert page.sort(TABLE, DEV_RUN_1) == "ascending"
    assert page.cells(TABLE, DEV_RUN_1) == [*expected, "–"]
    assert page.sort(TABLE, 0) == "ascending"
    assert page.cells(TABLE, 0) == sorted(task["name"] for task in data["tasks"])
    assert page.js(f"return document.querySelectorAll('{TABLE} [aria-sort=\"none\"]').length") > 5


def test_scores_are_filtered_by_text_and_by_category(page):
    data = page_data(n_tasks=30)
    page.open(data)
    page.fill("#scores input[type=search]", "NLI")
    assert page.cells(TABLE, 0) == [task["name"] for task in data["tasks"] if "nli" in task["name"]]
    assert page.texts(f"{TABLE} .count") == [f"{len(page.cells(TABLE, 0))} of 30 rows"]
    page.fill("#scores input[type=search]", "rouge")
    assert set(page.cells(TABLE, METRIC)) == {"Rouge-L"}
    page.fill("#scores input[type=search]", "task")
    page.choose("#score-category", "qa")
    assert page.cells(TABLE, 0) == [task["name"] for task in data["tasks"] if task["category"] == "qa"]
    page.fill("#scores input[type=search]", "no such thing")
    assert page.cells(TABLE, 0) == []


def test_means_by_category_are_means_over_tasks_of_their_mean_over_samples(page):
    data = page_data(n_tasks=12, samples=("100_13", "100_21"))
    page.open(data)
    scores = {}
    for group in data["runs"][1]["scores"]:
        if (group["part"], group["section"]) == ("test", "train"):
            for task, _, _, score, *_ in group["rows"]:
                scores.setdefault(data["tasks"][task]["category"], {}).setdefault(task, []).append(score)
    table = "#scores .table-block"
    # category, then run 1, run 2, constant and n of dev, then of test
    shown = dict(
        zip(
            page.cells(table, 0)[:4],
            zip(page.cells(table, 6), page.cells(table, 8), strict=True),
            strict=False,
        )
    )
    for category, tasks in scores.items():
        assert shown[category] == (
            f"{mean([mean(values) for values in tasks.values()]):.3f}",
            str(len(tasks)),
        )
    page.click("#scores .check input")
    assert len(page.cells(TABLE, 0)) == 12
    page.sort(table, 0)
    page.sort(table, 0)
    names = [category["name"] for category in data["categories"]]
    assert page.cells(table, 0)[:4] == ["all tasks", *reversed(names)]


def test_samples_are_named_without_the_task_and_only_if_there_are_several(page):
    data = page_data(n_tasks=12, samples=("1536_0", "1536_1"))
    for run in data["runs"]:
        for group in run["scores"]:
            for row in group["rows"]:
                row[1] = f"{data['tasks'][row[0]]['name']}_{row[1]}"
    page.open(data)
    heads = f"{TABLE} thead tr:last-child button"
    assert page.texts(heads)[-1] == "sample"
    assert set(page.cells(TABLE, len(page.texts(heads)) - 1)) == {"1536_0", "1536_1"}
    page.click('.row-name[data-task="3"]')
    assert page.texts("#detail thead th") == [
        "run", "part", "score", "constant", "n", "metric", "sample",
    ]  # fmt: skip
    assert page.cells("#detail", 6)[:2] == ["1536_0", "1536_1"]
    for run in data["runs"]:
        for group in run["scores"]:
            group["rows"] = group["rows"][::2]
    page.open(data)
    assert "sample" not in page.texts(heads)
    assert not page.texts("#scores .check")
    page.click('.row-name[data-task="3"]')
    assert page.texts("#detail thead th")[-1] == "metric"


def test_a_correlation_marks_its_expert_in_the_map(page):
    data = page_data(n_tasks=12, n_correlations=300)
    page.open(data)
    rows = data["runs"][0]["correlations"]["rows"]
    assert len(page.cells("#correlations", 0)) == 200
    page.click("#correlations .table-block > button")
    assert len(page.cells("#correlations", 0)) == 300
    page.fill("#correlations input", "News")
    assert set(page.cells("#correlations", 0)) == {"domain:news"}
    rows = [row for row in rows if row[0] == "domain:news"]
    place = next(place for place, row in enumerate(rows) if row[2] != 0)
    page.click(f"#correlations tbody tr:nth-child({place + 1})")
    _, layer, expert, *_ = rows[place]
    name = f"enc {layer}" if layer < 2 else "dec 0"
    assert page.texts("#detail h2") == [f"{name}, expert {expert}, run 1"]
    assert page.labels('.expert-head [aria-pressed="true"]') == [f"{name}, expert {expert}"]


def test_drops_are_means_over_the_tasks_of_a_category(page):
    data = page_data(n_tasks=30, n_runs=1)
    page.open(data)
    ablation = data["runs"][0]["ablation"]
    places = [
        place for place, task in enumerate(ablation["tasks"]) if data["tasks"][task]["category"] == "qa"
    ]
    row = page.js(
        "return [...document.querySelectorAll('.drops tbody tr:last-child > *')].map(n => n.textContent)"
    )
    assert row[:2] == ["qa", str(len(places))]
    expected = [mean([drops[place] for place in places]) for drops in ablation["drops"]]
    assert numbers(row[2:]) == pytest.approx(expected, abs=6e-4)
    hardest = max(range(9), key=lambda column: mean(ablation["drops"][column]))
    layer = ["enc 0", "enc 1", "dec 0"][hardest // 3]
    assert page.cells("#expert-drops", 0)[0] == f"{layer}, expert {hardest % 3}"
    worst = max(range(15), key=lambda place: ablation["drops"][hardest][place] or 0)
    assert data["tasks"][ablation["tasks"][worst]]["name"] in page.cells("#expert-drops", 4)[0]


def test_only_ablated_experts_and_sets_are_shown(page):
    data = page_data(n_tasks=12, n_runs=1)
    page.open(data)
    heads = ["Mean drop by category", "Experts", "Experts of a feature", "Sets of experts"]
    assert page.texts("#ablation h3") == heads
    worst = [f"{data['tasks'][task]['name']} {drop}" for task, drop in ((2, "+0.500"), (0, "+0.125"))]
    assert [page.cells("#set-drops", column) for column in range(3)] == [
        ["enc0.1 + dec0.0"], ["+0.043"], ["".join(worst)],
    ]  # fmt: skip
    data["runs"][0]["ablation"] |= {"tasks": [], "drops": [], "sets": []}
    page.open(data)
    assert page.texts("#ablation h3") == heads[2:3]
    assert not page.texts(".drops, #expert-drops")
    page.click('[data-column="4"]')
    assert page.texts("#detail .block:nth-child(2) thead th") == ["category", "n", "mean weight"]


def test_experts_of_a_feature_are_filtered_and_categories_shown_on_request(page):
    page.open(page_data(n_tasks=12, n_runs=1))
    table = "#feature-drops"
    main = ["with feature", "without feature", "all"]
    assert page.cells(table, 1) == [*main, "with feature"]
    page.click("#ablation .check input")
    assert page.cells(table, 1) == ["with feature", "without feature", "qa", "all", "with feature"]
    assert page.cells(table, 3)[0] == "0.710"
    assert page.cells(table, 4)[0] == "0.680"
    page.fill("#ablation input[type=search]", "NEWS")
    assert page.cells(table, 0) == ["domain:news"]
    assert page.cells(table, 4) == page.cells(table, 8) == ["–"]  # no other set matches


def test_settings_that_differ_are_first_and_can_be_filtered(page):
    page.open(page_data())
    settings = "#setting-table"
    assert page.cells(settings, 0)[:2] == ["seed", "warm"]
    assert page.cells(settings, 1)[:3] == ["≠ differs", "≠ differs", ""]
    page.click("#settings .check input")
    assert page.cells(settings, 0) == ["seed", "warm"]


def test_predictions_show_whether_they_match_an_answer(page):
    data = page_data(n_tasks=12)
    samples = data["runs"][0]["predictions"][3]["samples"]
    # As the metric decides, over answers that are not all shown.
    samples[0] |= {"prediction": "It follows.", "exact": True, "more_answers": 7}
    samples[1] |= {"prediction": "entailment", "exact": False}
    page.open(data)
    page.choose("#prediction-task", "3")
    verdicts = page.texts(
        "#predictions .sample:nth-child(1) .verdict, #predictions .sample:nth-child(2) .verdict"
    )
    assert verdicts[0] == "exact match: yes"
    assert verdicts[2] == "exact match: no"
    assert page.texts("#predictions .sample dd .count") == ["… and 7 more", "… and 2 more"]
    inputs = page.texts("#predictions .sample dd:first-of-type .text:not([hidden])")
    assert inputs[0] == samples[0]["input"]
    assert len(inputs[3]) < len(samples[3]["input"])
    page.click("#predictions .sample:nth-child(4) button")
    assert page.texts("#predictions .sample dd:first-of-type .text:not([hidden])")[3] == samples[3]["input"]
