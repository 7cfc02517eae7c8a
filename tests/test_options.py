"""Answer options of tasks and their sources."""

import collections

import pytest

from dataloader import Example, Gym
from dataloader.options import OptionSource, label_set, listed_options, option_source


def example(source, *outputs, options=()) -> Example:
    return Example("t", "t_2_13", source, outputs, tuple(options))


def of_labels(*counts) -> list[Example]:
    """Returns examples with different inputs; counts: numbers of examples with answer "a0", "a1", ..."""
    answers = [f"a{i}" for i, count in enumerate(counts) for _ in range(count)]
    return [example(f"input {i}", answer) for i, answer in enumerate(answers)]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("which?(A)2 years(B)unknown(C)4 years [SEP] a text (2018)", ("2 years", "unknown", "4 years")),
        ("q [SEP] a text [SEP]  (A) one . (B) two .", ("one .", "two .")),
        ("q (a) one\n(b) two\nand a text", ("one", "two")),
        ("q \\n (A) \\neq 2 (B) \\nu \\n a text", ("\\neq 2", "\\nu")),
        ("question: q (A) one (B) two context: a text", ("one", "two")),
        ("find P (A) and P(B) if P (A) = 1 (A) 0.2 (B) 0.4 (C) 1", ("0.2", "0.4", "1")),
        ("q (A) 5 (g) of it (B) 6 (g)", ("5 (g) of it", "6 (g)")),
    ],
)
def test_listed_options_end_at_the_next_option_or_at_the_end_of_the_list(text, options):
    assert listed_options(text) == options


@pytest.mark.parametrize("text", ["", "only (A) one", "(B) two (C) three", "(A) (B) two", "(A) one (b) two"])
def test_a_text_without_a_list_of_two_has_no_options(text):
    assert listed_options(text) == ()


def test_labels_are_few_recurring_answers_sorted():
    assert label_set([example("x1", "no"), example("x2", "yes")] * 20) == ()  # two different rows
    rows = [example(f"x{i}", answer) for answer in ("yes", "no") for i in range(16)]
    assert label_set(rows) == ("no", "yes")
    assert label_set(rows[:16]) == ()  # one answer to everything


def test_labels_need_five_examples_each_and_few_that_occur_once():
    assert label_set(of_labels(5, 5)) == ("a0", "a1")
    assert label_set(of_labels(5, 4)) == ()
    assert label_set(of_labels(30, 19, 1)) == ("a0", "a1", "a2")  # 1 of 50 is 2%
    assert label_set(of_labels(30, 18, 1)) == ()
    assert label_set(of_labels(*[2] * 50)) == ()


def test_fields_come_before_lists_and_lists_before_labels():
    listed = [example(f"{i} (A) yes (B) no", "yes" if i % 2 else "no") for i in range(20)]
    given = [example(e.input, *e.outputs, options=("no", "yes", "maybe")) for e in listed]
    assert option_source(given, "ACC") == OptionSource("field")
    assert option_source([*given[1:], listed[0]], "ACC") == OptionSource("input")
    assert option_source(listed, "Rouge-L") == OptionSource("input")
    assert option_source(of_labels(10, 10), "ACC") == OptionSource("labels", ("a0", "a1"))
    assert option_source([], "ACC") == option_source(of_labels(10, 10), "QA-F1") == OptionSource()
    assert option_source(of_labels(10, 10), "Matthew-Correlation").name == "labels"


def test_lists_must_have_an_accepted_answer_of_nearly_all_examples():
    def task(misses):
        return [example(f"{i} (A) x{i} (B) y{i}", "z" if i < misses else "no", f"y{i}") for i in range(20)]

    wrong = [example("(A) x (B) y", "z")]
    assert option_source(task(0), "EM").name == "input"  # the second accepted answer counts
    assert option_source(task(0)[:19] + wrong, "EM").name == "input"
    assert option_source(task(0)[:18] + wrong * 2, "EM").name is None


def test_the_real_tasks_have_their_known_option_sources(real_gym):
    gym = Gym(real_gym)
    sources = {task: option_source(gym.examples(task, "train"), gym.metric(task)) for task in gym.tasks()}
    numbers = collections.Counter(source.name for source in sources.values())
    assert numbers == {"labels": 65, None: 26, "input": 14}
    for task in ("ai2_arc", "aqua_rat", "cosmos_qa", "superglue-copa", "math_qa"):
        assert sources[task].name == "input"
    for task in ("cos_e", "superglue-multirc", "spider", "common_gen"):
        assert sources[task].name is None
    assert sources["piqa"].labels == ("0", "1")
    assert len(sources["trec-finegrained"].labels) == 47
    for task, source in sources.items():
        scored = gym.examples(task, "test", "first") if source.name else []
        assert all(set(source.options(e)) & set(e.outputs) for e in scored), task
