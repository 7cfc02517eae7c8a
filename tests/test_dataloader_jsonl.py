"""JSON-lines task files: reading them, errors for malformed lines, and use together with TSV files."""

import json

import pytest
from mistakes import UNUSUAL_JSON

from dataloader import Example, Gym, InputError, read_jsonl


def line(source="q", outputs=("yes",), **more) -> str:
    return json.dumps({"input": source, "outputs": list(outputs), **more}, ensure_ascii=False)


@pytest.fixture
def write(tmp_path):
    """write("name", lines or bytes): creates a file; returns its path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = "".join(f"{text}\n" for text in content).encode()
        path.write_bytes(content)
        return path

    return write


def test_a_line_is_an_object_whose_texts_keep_tabs_and_line_breaks(write):
    rows = [line(" a\tb\nc ", ["yes", " no\nnot "], options=["no\nnot", "maybe"]), line("x", ["y"], id=7)]
    assert read_jsonl(write("t.jsonl", rows)) == (
        [("a\tb\nc", ("yes", "no\nnot"), ("no\nnot", "maybe")), ("x", ("y",), ())],
        0,
    )
    assert read_jsonl(write("t.jsonl", [line(options=None)]))[0] == [("q", ("yes",), ())]
    assert read_jsonl(write("t.jsonl", f"{line()}\r\n{line()}".encode()))[0] == [("q", ("yes",), ())] * 2


WRONG = [
    ('{"input": "q", ', "not valid JSON: .* (column 16)"),
    ('["q", "yes"]', "holds a list, expected a JSON object"),
    ('{"outputs": ["yes"]}', 'no "input" (its keys: outputs)'),
    ('{"input": "q", "answers": ["yes"]}', 'no "outputs" (its keys: input, answers)'),
    ('{"input": " ", "outputs": ["yes"]}', '"input" is empty'),
    ('{"input": "q", "outputs": "yes"}', '"outputs" is a string, expected a list of strings'),
    ('{"input": "q", "outputs": []}', '"outputs" is an empty list'),
    ('{"input": "q", "outputs": ["yes", null]}', '"outputs[1]" is null, expected a string'),
    ('{"input": "q", "outputs": ["yes", " "]}', '"outputs[1]" is empty'),
    *UNUSUAL_JSON,
    (line(options="yes"), '"options" is a string, expected a list of strings'),
    (line(options=["yes"]), '"options" are not two or more different texts'),
    (line(options=["no", "yes", " no"]), '"options" are not two or more different texts'),
    (line(options=["no", "maybe"]), "\"options\" holds none of the outputs ('yes' is not among them)"),
    ("", "blank line"),
]


@pytest.mark.parametrize(("wrong", "problem"), WRONG)
def test_a_malformed_line_is_reported_with_file_and_number(write, wrong, problem):
    path = write("t_2_13_train.jsonl", [line(), wrong])
    with pytest.raises(InputError) as caught:
        read_jsonl(path)
    output = str(caught.value)
    assert output.startswith(f"{path}: 1 malformed line (--skip_malformed leaves them out):")
    place = f"\n  {path.name}:2: "
    start, *rest = problem.split(".*")
    assert place + start in output
    assert all(part in output for part in rest)
    assert read_jsonl(path, skip_malformed=True) == ([("q", ("yes",), ())], 1)


# ---------------------------------------------------------------------------- the folder


def test_a_sample_may_have_both_kinds_of_files(write, tmp_path):
    write("t/t_2_13_train.tsv", ["a\tyes", "b\tno"])
    write("t/t_2_13_test.jsonl", [line("c", ["yes"], options=["yes", "no"])])
    write("t/t_2_21_train.jsonl", [line("d\te")])
    write("t/t_2_21_test.tsv", ["f\tno"])
    write("notes/readme.jsonl", [line()])
    gym = Gym(tmp_path)
    assert gym.tasks() == ["t"]
    assert gym.samples("t") == ["t_2_13", "t_2_21"]
    assert [example.input for example in gym.examples("t", "train")] == ["a", "b", "d\te"]
    assert gym.examples("t", "test", "13") == [Example("t", "t_2_13", "c", ("yes",), ("yes", "no"))]
    assert gym.examples("t", "test", "21")[0].options == ()
    assert gym.has_part("t", "test")
    assert not gym.has_part("t", "dev")
    assert not gym.has_part("absent", "train")
    assert gym.check(["t"], ["train", "test"], metrics=False) == []


def test_a_part_with_both_extensions_is_a_problem_that_names_both(write, tmp_path):
    for ending, content in (("tsv", ["a\tyes"]), ("jsonl", [line()])):
        write(f"t/t_2_13_dev.{ending}", content)
    path = tmp_path / "t" / "t_2_13_dev"
    problem = f"{path}.tsv and t_2_13_dev.jsonl both exist; keep only one of them"
    assert Gym(tmp_path).check(["t"], ["dev"], metrics=False) == [problem]
    with pytest.raises(InputError) as caught:
        Gym(tmp_path).examples("t", "dev")
    assert caught.value.problems == [problem]
