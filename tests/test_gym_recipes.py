"""Each of the 160 recipes gives exactly the expected lines on hand-made rows (data/recipes/README.md)."""

import json
from pathlib import Path

import pytest

from dataloader import METRICS, PUBLISHED_SPLITS, load_split
from dataloader.building.recipe import Hub, Raw, draw_sample
from dataloader.building.report import published_sums
from dataloader.recipes import PUBLISHED, RECIPES
from dataloader.templates import dataset_of

DATA = Path(__file__).parent / "data/recipes"
GOLDEN = {
    task: case
    for path in sorted(DATA.glob("*.json"))
    if path.name != "sampling.json"
    for task, case in json.loads(path.read_text(encoding="utf-8")).items()
}


def test_there_is_a_recipe_for_each_published_task():
    assert PUBLISHED.keys() == METRICS.keys() == GOLDEN.keys()
    samples = {name.rsplit("_", 2)[0] for name in published_sums()}
    assert samples == {f"{recipe.task}_{recipe.k}" for recipe in PUBLISHED.values()}


@pytest.mark.parametrize("task", GOLDEN)
def test_the_lines_of_a_task_are_the_expected_ones(task):
    recipe, case = PUBLISHED[task], GOLDEN[task]
    assert set(recipe.splits) == case["splits"].keys()
    adapt = next((source.adapt for source in recipe.sources if isinstance(source, Hub)), None)
    for split, rows in case["splits"].items():
        columns = map(adapt, rows) if adapt else iter(rows)
        lines = ["\t".join(recipe.example(row)) for row in recipe.prepared(columns)]
        assert lines == case["lines"][split]


ONE_SPLIT = "rows of the one split shuffled with seed 42"
RULES = {
    "pool = rows of fewshot_split in order; test = all rows of test_split in order": "glue-rte",
    f"{ONE_SPLIT}; pool = first int(0.8*n), test = the rest (shuffled order)": "trec",
    "rows of train shuffled with seed 42; pool = rows 0-9999, test = rows 10000-10999": "amazon_polarity",
    "rows of train shuffled with seed 42; pool = first int(0.8*n), test = from int(0.99*n) on": "lama-trex",
    **{
        f"pool = rows of fewshot_split in order; test = rows of test_split shuffled with seed 42, "
        f"first int({share}*n)": task
        for share, task in (
            (0.01, "wiki_bio"), (0.05, "dbpedia_14"), (0.1, "discovery"), (0.2, "yelp_polarity")
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("case", json.loads((DATA / "sampling.json").read_text(encoding="utf-8")))
def test_samples_are_drawn_as_published(case):
    """Each rule is that of a task which has it."""
    recipe = PUBLISHED[RULES[case["rule"]]]
    lines = case["pool_split"] or [f"text {i}\t{'yes' if i % 3 else 'no'}" for i in range(case["pool_count"])]
    pool = [tuple(line.split("\t", 1)) for line in lines]
    test = case["test_split"] and [tuple(line.split("\t", 1)) for line in case["test_split"]]
    pool, test = recipe.pool_and_test(pool, test)
    train, dev = draw_sample(pool, case["k"], case["kind"] == "classification", case["seed"])
    for part, examples in (("train", train), ("dev", dev), ("test", test)):
        assert ["\t".join(example) for example in examples] == case[part]


def test_every_prompt_has_the_rows_of_its_data_sets_own_task():
    prompts = {task: recipe for task, recipe in RECIPES.items() if task not in PUBLISHED}
    assert len(prompts) == 24
    for task, recipe in prompts.items():
        base = PUBLISHED[dataset_of(task)]
        assert (recipe.sources, recipe.k, recipe.by_label, recipe.splits) == (
            (base.sources, base.k, base.by_label, base.splits)
        )
        for rows in GOLDEN[base.task]["splits"].values():
            kept = list(recipe.prepared(rows))
            examples = [recipe.example(row) for row in kept]
            assert len({output for _, output, _ in examples}) > 1
            own = [base.example(row)[1] for row in kept]
            for (text, output, further), (_, answer) in zip(examples, enumerate(own), strict=True):
                assert output in (options := further["options"])
                assert len(options) == len(set(options)) > 1
                assert "{" not in text
                # The same answer always gets the same word, or is itself one of the options.
                assert recipe.by_label or output == answer.strip()


def test_the_answers_of_prompts_are_those_of_the_task():
    row = {"premise": "It rained.", "hypothesis": "The street is dry.", "label": 1}
    assert RECIPES["superglue-rte__does_it_follow"].example(row) == (
        'Text: It rained. Does it follow from the text that "The street is dry."? Answer yes or no.',
        "no",
        {"options": ["yes", "no"]},
    )
    answers = {"superglue-cb__conclude": ["yes", "no", "maybe"], "anli__conclude": ["yes", "maybe", "no"]}
    for task, expected in answers.items():
        assert [RECIPES[task].example(row | {"label": i})[1] for i in range(3)] == expected


def test_the_split_of_prompts_trains_on_no_task_of_their_data_sets():
    split = load_split(PUBLISHED_SPLITS / "t0_held_out.json")
    assert set(split.test) == RECIPES.keys() - PUBLISHED.keys()
    assert not {dataset_of(task) for task in split.test} & set(split.train)
    assert set(split.train) < PUBLISHED.keys()


def test_data_that_may_not_be_passed_on_has_no_source_on_github():
    closed = [recipe for recipe in PUBLISHED.values() if "may not be passed on" in recipe.terms]
    assert len(closed) == 6
    for recipe in closed:
        for source in recipe.sources:
            urls = [source.urls(split) for split in recipe.splits] if isinstance(source, Raw) else []
            assert not [url for of_split in urls for url in of_split if "github" in url]
