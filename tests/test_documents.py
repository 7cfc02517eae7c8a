"""What the README and the pages of docs/ tell a user to do exists and works."""

import argparse
import importlib
import importlib.util
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from dataloader.command_line import ENTRY_POINT
from routing_moe.cli import entry

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "benchmarks/README.md", *sorted(ROOT.glob("docs/**/*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}

PROGRAMS = ("python", "bash", "accelerate", ENTRY_POINT)
INSTALLING = {  # they make environments
    *("example_scripts/quickstart.sh", "tests/run_tests.sh", "tests/run_tests_of_versions.sh"),
}
# Flags of other programs, and those of CrossFit that docs/differences.md says are left out.
NOT_OURS = {
    *("--num_processes", "--no-cov", "--durations"),
    *("--verbose", "--train_file", "--dev_file", "--test_file"),
    *("--warmup_proportion", "--predict_checkpoint", "--memory_efficient"),
}
# Of the published code, in the table of names in docs/differences.md.
PUBLISHED_SCRIPTS = {
    *("get_text_emb.sh", "finetuneTextEmb_a_list_of_tasks.sh", "finetuneFisher_a_list_of_tasks.sh"),
}
TOP_FOLDERS = "benchmarks|dataloader|docs|example_scripts|routing_moe|task|tests"


# ---------------------------------------------------------------------------- commands in pages


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands_of(text: str) -> set[str]:
    """The commands in a page's bash blocks and inline code that start one of PROGRAMS."""
    lines = [line for block in code_blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_blocks(text))]
    return {line for line in lines if program_of(line)}


def split_command(command: str) -> tuple[dict[str, str], list[str]]:
    """(environment variables, words); optional repetitions such as [RUN ...] are left out."""
    words = shlex.split(re.sub(r"\[[^]]*\.\.\.\]", "", command), comments=True)
    variables = {}
    while words and re.match(r"[A-Z_]\w*=", words[0]):
        name, variables[name] = words.pop(0).split("=", 1)
    return variables, words


def program_of(command: str) -> str | None:
    try:
        _, words = split_command(command)
    except ValueError:  # an apostrophe: prose
        return None
    called = len(words) > 1 and words[0] in PROGRAMS and words[1:] != ["launch"]
    return words[0] if called else None


COMMANDS = sorted({command for text in TEXTS.values() for command in commands_of(text)})
PYTHON_COMMANDS = [command for command in COMMANDS if program_of(command) != "bash"]
SHELL_COMMANDS = [command for command in COMMANDS if program_of(command) == "bash"]


class Parsed(Exception):
    """Ends a command once its flags are parsed."""


@pytest.fixture
def parse(monkeypatch):
    """parse(words behind python): the parser of that command, which has accepted the words."""
    original = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self, args=None, namespace=None):
        _, unknown = original(self, args, namespace)
        assert not unknown
        raise Parsed(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)

    def parse(words: list[str]) -> argparse.ArgumentParser:
        if words[0] == "-m":
            main, arguments = importlib.import_module(words[1]).main, words[2:]
        else:
            main, arguments = script_main(ROOT / words[0]), words[1:]
        with pytest.raises(Parsed) as found:
            main(arguments)
        return found.value.args[0]

    return parse


def as_module(words: list[str]) -> list[str]:
    """Words of the entry point as those of a module: train as python -m routing_moe.cli.train."""
    if words == ["--help"]:
        return ["python", "-m", "routing_moe.cli.entry"]
    n = next(n for n in (2, 1) if " ".join(words[:n]) in entry.COMMANDS)
    return ["python", "-m", entry.COMMANDS[" ".join(words[:n])], *words[n:]]


def script_main(path: Path):
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)).main


@pytest.mark.parametrize("command", PYTHON_COMMANDS)
def test_a_python_command_parses(parse, command):
    _, words = split_command(command)
    if words[0] == "accelerate":
        words = words[words.index("-m") - 1 :]
    if words[0] == ENTRY_POINT:
        words = as_module(words[1:])
    _, *words = [word for word in words if word != "--help"]
    if words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    elif words[0] == "-m" and len(words) == 2:  # named, not called
        assert importlib.util.find_spec(words[1])
    elif len(words) == 1:
        assert (ROOT / words[0]).is_file()
    else:
        parse(words)


@pytest.mark.parametrize("command", SHELL_COMMANDS)
def test_a_shell_command_is_a_script_and_its_python_commands_parse(parse, scripts, command):
    variables, words = split_command(command)
    script, arguments = words[1], [{"METHOD": "random"}.get(word, word) for word in words[2:]]
    assert (ROOT / script).is_file()
    sourced = "".join(path.read_text() for path in ROOT.glob("example_scripts/*.sh"))
    assert [name for name in variables if not re.search(rf"\b{name}\b", sourced)] == []
    if script in INSTALLING or "compare_" in script or "$" in command:
        return  # test_scripts.py runs the comparisons
    own = {name: value for name, value in variables.items() if name not in ("MODEL", "DATA_DIR", "SPLIT")}
    _, calls, output = scripts.run(Path(script).name, *arguments, TASKVECS_DIRS="vectors", **own)
    assert calls, output
    for call in calls:
        parse(shlex.split(call))


def test_there_are_commands_of_both_kinds():
    assert len(PYTHON_COMMANDS) > 40
    assert len(SHELL_COMMANDS) > 30


def test_a_misspelt_flag_is_found(parse):
    with pytest.raises((SystemExit, AssertionError)):
        parse(["-m", "routing_moe.cli.train", "--do_trian", "--output_dir", "RUN"])


# ---------------------------------------------------------------------------- flags, paths, links

FOLDERS_OF_COMMANDS = (
    *("routing_moe/cli", "task/task_emb", "task/skill_gym", "task/conflict_gym", "task/english_bart"),
    *("dataloader", "benchmarks", "example_scripts", "routing_moe/studies"),
)
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in FOLDERS_OF_COMMANDS
    for path in sorted((ROOT / folder).glob("*.py"))
    if "\ndef main(" in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """The flags of all commands."""
    parsers = []

    def stop(self, args=None, namespace=None):
        parsers.append(self)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        for module in MODULES:
            with pytest.raises(Parsed):
                importlib.import_module(module).main([])
    return {flag for parser in parsers for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_named_is_a_flag_or_said_to_be_left_out(page, known_flags):
    assert set(re.findall(r"(?<![\w-])--[a-z]\w+(?!-)", TEXTS[page])) - known_flags - NOT_OURS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_link_exists(page):
    text = TEXTS[page]
    paths = set(re.findall(rf"(?<![\w/.<>-])(?:{TOP_FOLDERS})/[\w./-]*\w/?", without_links(text)))
    assert sorted(path for path in paths if not there(path)) == []
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if not file.startswith("http"):
            linked = (page.parent / file).resolve() if file else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def without_links(text: str) -> str:
    return re.sub(r"\]\([^)]+\)", "", text)


def there(path: str) -> bool:
    return (ROOT / path).exists() or any(ROOT.glob(path.rstrip("/") + ".*"))


def anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


SCRIPTS = {path.name: path for folder in ("example_scripts", "tests") for path in ROOT.glob(f"{folder}/*.sh")}


def test_every_script_named_exists():
    """`_moe_avg.sh` is short for the script that ends so."""
    named = {name for text in TEXTS.values() for name in re.findall(r"\b[\w-]+\.sh\b", text)}
    ends = {name for name in named if name.startswith("_")}
    assert named - ends - SCRIPTS.keys() == PUBLISHED_SCRIPTS
    assert {end for end in ends if not any(name.endswith(end) for name in SCRIPTS)} == set()


@pytest.mark.parametrize("path", SCRIPTS.values(), ids=lambda path: path.name)
def test_scripts_are_well_formed(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


# ---------------------------------------------------------------------------- README, figure, workflow


def test_the_readme_is_short_and_lists_all_pages_and_folders():
    text = TEXTS[README]
    assert len(text.encode()) <= 12288
    pages = {page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/*.md")}
    assert sorted(page for page in pages if f"]({page})" not in text) == []
    folders = {folder for folder in TOP_FOLDERS.split("|") if folder != "task"}
    assert sorted(folder for folder in folders if f"| `{folder}/` |" not in text) == []


def test_the_results_are_listed():
    index = ROOT / "docs/results/README.md"
    pages = {page.name for page in index.parent.glob("*.md")} - {index.name}
    assert {page for page in pages if f"]({page})" not in TEXTS[index]} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_prose_are_within_the_line_limit(page):
    prose = [line for line in without_blocks(TEXTS[page]).splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 120] == []


def test_the_workflow_runs_the_two_commands_of_the_readme():
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    (commands,) = [block for block in code_blocks(TEXTS[README], "bash") if "quickstart.sh" in block]
    for line in commands.splitlines():
        assert f"- run: {line.split('#')[0].strip()}\n" in workflow


def test_the_figure_is_what_its_script_draws():
    figure = runpy.run_path(str(ROOT / "docs/images/method.py"))["figure"]
    assert figure() == (ROOT / "docs/images/method.svg").read_text(encoding="utf-8")


def test_the_python_example_runs(make_model, tmp_path, monkeypatch):
    import torch
    from transformers import AutoTokenizer

    from task.skill_gym import TINY_BART

    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    model = make_model(dtype=torch.float32, bart_fields={"vocab_size": len(tokenizer)})
    monkeypatch.chdir(tmp_path)
    checkpoint = "models/quickstart/gradient_routing/seed42/best"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    (example,) = code_blocks(TEXTS[ROOT / "docs/training.md"], "python")
    exec(compile(example, "training.md", "exec"), {})
    assert (tmp_path / "models/plain_bart_of_one_task/model.safetensors").is_file()
