"""What the README and the pages of docs/ tell a user to do exists and works."""

import argparse
import re
import shlex
import warnings
from pathlib import Path

import pytest

from routing_moe.cli import entry

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
OTHERS = [ROOT / "benchmarks/README.md", ROOT / "example_scripts/README.md"]
PAGES = [*sorted(ROOT.glob("*.md")), *OTHERS, *sorted(ROOT.glob("docs/**/*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
# Result pages and the changelog are history: their commands, flags and scripts are those of their commits.
CURRENT = [page for page in PAGES if "results" not in page.parts and page.name != "CHANGELOG.md"]

PROGRAMS = ("python", "bash", "accelerate", entry.NAME)
# Flags of other programs, and those of CrossFit that docs/differences.md says are left out.
NOT_OURS = {
    *("--num_processes", "--durations"),
    *("--array", "--gpus", "--gres", "--time", "--signal", "--wrap"),  # of sbatch
    *("--requeue", "--mem", "--ntasks", "--head", "--port", "--address"),  # of sbatch, srun, ray
    *("--model_args", "--lora"),  # of lm_eval and llama-server
    *("--verbose", "--train_file", "--dev_file", "--test_file"),
    *("--warmup_proportion", "--predict_checkpoint", "--memory_efficient"),
}
SCRIPTS = {path.name: path for folder in ("example_scripts", "tests") for path in ROOT.glob(f"{folder}/*.sh")}
FLAG = re.compile(r"(?<![\w-])--[a-z]\w+(?![\w-])")  # ours have no hyphens
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


COMMANDS = sorted({command for page in CURRENT for command in commands_of(TEXTS[page])})


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

    def parse(module: str, words: list[str]) -> None:
        main = entry.runner(module).main
        monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
        with pytest.raises(Parsed):
            main(words)

    return parse


def called(words: list[str]) -> tuple[str, list[str]]:
    """Returns the module that a command calls, and its words; "" for --help of all commands."""
    if words[0] == "accelerate":
        words = words[words.index("-m") - 1 :]
    if words[0] == entry.NAME:
        n = next((n for n in (2, 1) if " ".join(words[1 : n + 1]) in entry.COMMANDS), 0)
        return (entry.COMMANDS[" ".join(words[1 : n + 1])], words[n + 1 :]) if n else ("", [])
    if words[1] == "-m":
        return words[2], words[3:]
    folder = "routing_moe/cli" if words[1].startswith("example_scripts/") else "."
    return ".".join(Path(folder, words[1].removeprefix("example_scripts/")).with_suffix("").parts), words[2:]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses_or_its_script_exists_and_reads_its_variables(parse, command):
    variables, words = split_command(command)
    words = [word for word in words if word != "--help"]
    paths = [word for word in words[1:2] if words[0] == "bash" or word.endswith(".py")]
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    if words[0] == "bash":  # test_example_scripts.py runs each script
        text = (ROOT / words[1]).read_text(encoding="utf-8")
        assert [name for name in variables if name not in text] == []
        return
    module, arguments = called(words)
    assert module or words[0] == entry.NAME
    if module == "pytest":
        assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
    elif module and arguments:
        parse(module, arguments)
    elif module:  # named, not called
        assert entry.runner(module)


# ---------------------------------------------------------------------------- flags, paths, links

BENCHMARKS = [
    f"benchmarks.{path.stem}"
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if "\ndef main(" in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """The flags of all commands, and those that the text of a script has."""
    parsers = []

    def stop(self, args=None, namespace=None):
        parsers.append(self)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        for module in (*entry.COMMANDS.values(), *BENCHMARKS):
            with pytest.raises(Parsed):
                entry.runner(module).main([])
    flags = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    return flags.union(*(FLAG.findall(path.read_text(encoding="utf-8")) for path in SCRIPTS.values()))


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_named_is_a_flag_or_said_to_be_left_out(page, known_flags):
    assert set(FLAG.findall(TEXTS[page])) - known_flags - NOT_OURS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_link_exists(page):
    text = TEXTS[page]
    if page in CURRENT:
        named = re.sub(r"\]\([^)]+\)", "", text)  # without links
        paths = set(re.findall(rf"(?<![\w/.<>-])(?:{TOP_FOLDERS})/[\w./-]*\w/?", named))
        assert [path for path in paths if not any(ROOT.glob(path.rstrip("/") + "*"))] == []
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if not file.startswith("http"):
            linked = (page.parent / file).resolve() if file else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---------------------------------------------------------------------------- README, figure, workflow


def test_indexes_list_all_pages_and_scripts():
    for index in (ROOT / "docs/README.md", ROOT / "docs/results/README.md"):
        pages = {*index.parent.glob("*.md"), *index.parent.glob("protocols/*.md")} - {index}
        names = {page.relative_to(index.parent).as_posix() for page in pages}
        assert {name for name in names if f"]({name})" not in TEXTS[index]} == set()
    text = TEXTS[ROOT / "example_scripts/README.md"]
    scripts = [path.name for path in ROOT.glob("example_scripts/*.sh") if path.name != "setup.sh"]
    names = {name: name.replace("finetune_a_list_of_tasks_", "_") for name in scripts}
    assert sorted(name for name, short in names.items() if f"`{short}`" not in text) == []


def test_the_python_example_runs(make_model, tmp_path, monkeypatch):
    import torch
    from tiny_runs import TINY_BART
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    model = make_model(dtype=torch.float32, bart_fields={"vocab_size": len(tokenizer)})
    model.config.random_vectors, model.config.trained_tasks = ["a", "b"], ["c", "d"]
    monkeypatch.chdir(tmp_path)
    checkpoint = "models/moe/best"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    (example,) = code_blocks(TEXTS[ROOT / "docs/run_folder.md"], "python")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="never trained")
        exec(compile(example, "run_folder.md", "exec"), {})
    assert (tmp_path / "models/plain_bart_of_one_task/model.safetensors").is_file()


def test_the_training_loop_of_ones_own_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("task", "example_scripts"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    blocks = code_blocks(TEXTS[ROOT / "docs/extending.md"], "python")
    (loop,) = (block for block in blocks if "optimizer" in block)
    assert "range(1, 101)" in loop
    exec(compile(loop.replace("range(1, 101)", "range(1, 3)"), "extending.md", "exec"), {})
    assert "reverse: stored vector" in capsys.readouterr().out
    assert (tmp_path / "models/loop/model.safetensors").is_file()
