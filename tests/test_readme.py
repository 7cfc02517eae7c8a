"""What the README tells a user to do exists and works."""

import re
from pathlib import Path

import pandas as pd
import pytest

from example_scripts import collect_results, compute_arg, create_gif
from routing_moe.cli import (
    ablate_arguments,
    compare_runs,
    correlate_routes,
    finetune_arguments,
    inspect_routes,
    merge,
    report,
)
from routing_moe.cli.arguments import build_parser
from routing_moe.results.compared_costs import Compared, cost_markdown
from routing_moe.results.scores import comparison_markdown
from task.task_emb import descriptions, finetuned_text, fisher, inspect, random, text
from task.task_emb.arguments import reduce_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

EXPLAINING = (ablate_arguments, correlate_routes, create_gif, inspect_routes, report)
VECTOR_COMMANDS = (random, text, finetuned_text, fisher, descriptions, inspect)

# accelerate's, and what the README says is left out
NOT_OURS = {
    "--num_processes",
    "--verbose",
    "--train_file",
    "--dev_file",
    "--test_file",
    "--warmup_proportion",
    "--predict_checkpoint",
    "--memory_efficient",
}


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_script_module_and_folder_named_exists():
    named = set(
        re.findall(r"[\w/]+\.(?:sh|py|png)\b|\bbenchmarks/README\.md|dataloader/splits/\w+\.json", README)
    )
    missing = sorted(path for path in named if "/" in path and not (ROOT / path).exists())
    assert missing == []
    for module in set(re.findall(r"python -m ([\w.]+)", README)):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module
    for folder in re.findall(r"^\| `([\w/]+/)` \|", README, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_every_flag_named_is_a_flag_or_said_to_be_left_out():
    modules = (
        merge,
        compare_runs,
        finetune_arguments,
        collect_results,
        compute_arg,
        *VECTOR_COMMANDS,
        *EXPLAINING,
    )
    parsers = [build_parser(""), reduce_parser(), *(module.build_parser() for module in modules)]
    known = NOT_OURS.union(*(parser._option_string_actions for parser in parsers))
    assert set(re.findall(r"(?<![\w-])--\w+", README)) - known == set()


@pytest.mark.parametrize(
    ("program", "parser"),
    [
        ("routing_moe.cli.train", build_parser("")),
        ("routing_moe.cli.finetune", finetune_arguments.build_parser()),
        ("collect_results.py", collect_results.build_parser()),
        ("compute_arg.py", compute_arg.build_parser()),
    ],
)
def test_commands_parse(program, parser):
    commands = [
        line
        for block in code_blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
        if program in line
    ]
    assert commands
    for command in commands:
        assert parser.parse_args(command.split(program, 1)[1].split())


def test_the_python_example_runs(make_model, tmp_path, monkeypatch):
    import torch
    from transformers import AutoTokenizer

    from task.skill_gym import TINY_BART

    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    model = make_model(dtype=torch.float32, bart_fields={"vocab_size": len(tokenizer)})
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("models/quickstart/best")
    tokenizer.save_pretrained("models/quickstart/best")
    (example,) = code_blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "models/plain_bart_of_one_task/model.safetensors").is_file()


@pytest.mark.parametrize("path", sorted(ROOT.glob("example_scripts/*.sh")), ids=lambda path: path.name)
def test_scripts_are_well_formed(path):
    import subprocess

    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("name", ["compare_routings", "compare_routings_equal_flops"])
def test_a_comparison_of_routings_is_that_of_its_file(name):
    scores = pd.read_csv(ROOT / f"docs/results/{name}.csv").astype({"n": "Int64"})
    assert comparison_markdown(scores, "multitask") in README


def test_the_costs_of_routings_are_those_of_their_file():
    costs = pd.read_csv(ROOT / "docs/results/compare_routings_cost.csv")
    assert cost_markdown(Compared([]), costs).split("\n\n")[1] in README
