"""What the README and the pages of docs/ tell a user to do exists and works."""

import argparse
import csv
import importlib
import re
import runpy
import shlex
import subprocess
import warnings
from pathlib import Path

import pytest

from routing_moe.cli import entry
from routing_moe.studies import real_gym, study

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "benchmarks/README.md", *sorted(ROOT.glob("docs/**/*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}

PROGRAMS = ("python", "bash", "accelerate", entry.NAME)
# Flags of other programs, and those of CrossFit that docs/differences.md says are left out.
NOT_OURS = {
    *("--num_processes", "--no-cov", "--durations"),
    *("--array", "--gres", "--time", "--signal"),  # of sbatch
    *("--verbose", "--train_file", "--dev_file", "--test_file"),
    *("--warmup_proportion", "--predict_checkpoint", "--memory_efficient"),
}
# Of the published code, in the table of names in docs/differences.md.
PUBLISHED_SCRIPTS = {
    *("get_text_emb.sh", "finetuneTextEmb_a_list_of_tasks.sh", "finetuneFisher_a_list_of_tasks.sh"),
}
NO_MODULE = {  # scripts of several commands
    *("tests/run_tests.sh", "tests/run_tests_of_versions.sh"),
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


with open(ROOT / "docs/results/real_commands.csv", encoding="utf-8", newline="") as recorded:
    RECORDED = [row["command"] for row in csv.DictReader(recorded)]
COMMANDS = sorted({command for text in TEXTS.values() for command in commands_of(text)}.union(RECORDED))


class Parsed(Exception):
    """Ends a command once its flags are parsed."""


@pytest.fixture
def parse(monkeypatch):
    """parse(module, words): calls `main` of a module until it has parsed the words, which it must accept."""
    original = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self, args=None, namespace=None):
        _, unknown = original(self, args, namespace)
        assert not unknown
        raise Parsed

    def stop(*_):
        raise Parsed

    monkeypatch.setattr(study, "reporting_errors", stop)

    def parse(module: str, words: list[str]) -> None:
        main = importlib.import_module(module).main
        if "run_study" not in main.__globals__:  # which hands unknown flags on before it comes to `stop`
            monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
        with pytest.raises(Parsed):
            main(words)

    return parse


def started_by(script: Path) -> tuple[str, list[str]]:
    """Returns the module that a script starts, and the words in front of its arguments; ("", []) if none."""
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r'"?\$\{\w+:-([^}]*)\}"?', r"\1", text)  # the defaults of variables
    started = re.search(r'^exec "\$PYTHON" -m ([\w.]+) ([^$"]*)', text, flags=re.MULTILINE)
    return (started[1], started[2].split()) if started else ("", [])


def called(words: list[str]) -> tuple[str, list[str]]:
    """Returns the module that a command calls, and its words; "" for a test of ours."""
    if words[0] == "accelerate":
        words = words[words.index("-m") - 1 :]
    if words[0] == entry.NAME:
        n = next((n for n in (2, 1) if " ".join(words[1 : n + 1]) in entry.COMMANDS), 0)
        return (entry.COMMANDS[" ".join(words[1 : n + 1])], words[n + 1 :]) if n else ("", [])
    if words[0] == "bash":
        module, first = started_by(ROOT / words[1])
        return module, [*first, *({"METHOD": "random"}.get(word, word) for word in words[2:])]
    if words[1] == "-m":
        return words[2], words[3:]
    return ".".join(Path(words[1]).with_suffix("").parts), words[2:]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses(parse, monkeypatch, command):
    variables, words = split_command(command)
    words = [word for word in words if word != "--help"]
    paths = [word for word in words[1:2] if words[0] == "bash" or word.endswith(".py")]
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    module, arguments = called(words)
    assert module or words[0] == entry.NAME or words[1] in NO_MODULE
    if module == "pytest":
        assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
    elif module and (arguments or words[0] == "bash"):
        parse(module, arguments)
    elif module:  # named, not called
        assert importlib.util.find_spec(module)


@pytest.mark.parametrize("command", [command for command in COMMANDS if split_command(command)[0]])
def test_the_variables_of_a_command_are_flags_of_its_script(command):
    variables, words = split_command(command)
    if words[1] in NO_MODULE:
        return
    module, _ = started_by(ROOT / words[1])
    known = {
        settings.variables.get(name, name.upper())
        for settings in vars(importlib.import_module(module)).values()
        if isinstance(settings, type) and issubclass(settings, study.Script)
        for name in study.flags_of(settings)
    }
    assert variables.keys() - known == set()


def test_there_are_commands_of_both_kinds():
    programs = [split_command(command)[1][0] for command in COMMANDS]
    assert programs.count(entry.NAME) > 30
    assert programs.count("bash") > 30


def test_a_misspelt_flag_is_found(parse):
    with pytest.raises((SystemExit, AssertionError)):
        parse("routing_moe.cli.train", ["--do_trian", "--output_dir", "RUN"])
    with pytest.raises((SystemExit, AssertionError)):
        parse("routing_moe.studies.training", ["--do_trian", "--output_dir", "RUN"])


# ---------------------------------------------------------------------------- flags, paths, links

BENCHMARKS = [
    f"benchmarks.{path.stem}"
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if "\ndef main(" in path.read_text(encoding="utf-8")
    and path.stem != "reproduction"  # whose are a study's
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
        commands = [(module, []) for module in (*entry.COMMANDS.values(), *BENCHMARKS)]
        # The first part is that without arguments.
        commands += [(real_gym.__name__, [part]) for part in real_gym.PARTS]
        for module, arguments in commands:
            with pytest.raises(Parsed):
                importlib.import_module(module).main(arguments)
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


def test_the_readme_is_short_and_lists_all_folders():
    text = TEXTS[README]
    assert len(text.encode()) <= 12288
    folders = {folder for folder in TOP_FOLDERS.split("|") if folder != "task"}
    assert sorted(folder for folder in folders if f"| `{folder}/` |" not in text) == []


@pytest.mark.parametrize("index", ["docs/README.md", "docs/results/README.md"])
def test_an_index_lists_all_pages(index):
    pages = {page.name for page in (ROOT / index).parent.glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in TEXTS[ROOT / index]} == set()


def test_the_index_lists_all_scripts():
    text = TEXTS[ROOT / "docs/README.md"]
    scripts = [path.name for path in ROOT.glob("example_scripts/*.sh") if started_by(path)[0]]
    names = {name: name.replace("finetune_a_list_of_tasks_", "_") for name in scripts}
    assert sorted(name for name, short in names.items() if f"`{short}`" not in text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_prose_are_within_the_line_limit(page):
    prose = [line for line in without_blocks(TEXTS[page]).splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 120] == []


def test_the_workflow_runs_the_two_commands_of_the_readme():
    commands = [line.split("#")[0].strip() for line in code_blocks(TEXTS[README], "bash")[0].splitlines()]
    assert commands == ["bash example_scripts/quickstart.sh", "bash tests/run_tests.sh"]
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    assert all(f"- run: {command}\n" in workflow for command in commands)


def test_the_figure_is_what_its_script_draws():
    figure = runpy.run_path(str(ROOT / "docs/images/method.py"))["figure"]
    assert figure() == (ROOT / "docs/images/method.svg").read_text(encoding="utf-8")


def test_the_python_example_runs(make_model, tmp_path, monkeypatch):
    import torch
    from transformers import AutoTokenizer

    from task.skill_gym import TINY_BART

    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    model = make_model(dtype=torch.float32, bart_fields={"vocab_size": len(tokenizer)})
    model.config.random_vectors, model.config.trained_tasks = ["a", "b"], ["c", "d"]
    monkeypatch.chdir(tmp_path)
    checkpoint = "models/moe/best"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    (example,) = code_blocks(TEXTS[ROOT / "docs/first_run.md"], "python")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="never trained")
        exec(compile(example, "first_run.md", "exec"), {})
    assert (tmp_path / "models/plain_bart_of_one_task/model.safetensors").is_file()
