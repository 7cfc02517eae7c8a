"""Shared by the tests of whole runs: a gym of four tasks, a tiny BART in a folder, a command line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import tiny_bart_config, without_pictures
from safetensors.torch import load_file
from transformers import AutoTokenizer, BartForConditionalGeneration

from dataloader.atomic_files import LOCK_FILE
from routing_moe.cli.train import main
from routing_moe.optim.step import Stepper

os.environ["ACCELERATE_USE_CPU"] = "true"  # bit-identical results, also on a machine with a GPU

ROWS = {
    "colour": ["grass\tgreen", "sky\tblue\tBlue", "snow\twhite", "coal\tblack", "blood\tred", "sun\tyellow"],
    "count": ["two and one\t3", "one and one\t2", "two and two\t4", "zero and one\t1", "ten\t10", "six\t6"],
    "opposite": ["hot\tcold", "big\tsmall", "up\tdown", "in\tout", "wet\tdry", "fast\tslow"],
    "plural": ["cat\tcats", "mouse\tmice", "box\tboxes", "dog\tdogs", "man\tmen", "key\tkeys"],
}
METRICS = {"colour": "ACC", "count": "Pearson-Correlation", "opposite": "EM", "plural": "Rouge-L"}
TRAIN_TASKS = ["colour", "count", "opposite"]
NO_LEARNING = dict(learning_rate=0, router_lr=0, task_model_lr=0, total_steps=1)
ROOT = Path(__file__).resolve().parents[1]
TINY_BART = ROOT / "task/conflict_gym/tiny_bart"


def write_gym(folder: Path) -> Path:
    """Writes three train tasks and a test task with two samples of 12 train, 3 dev and 3 test rows."""
    for task, rows in ROWS.items():
        (folder / task).mkdir(parents=True)
        for seed, shift in (("13", 1), ("100", 0)):
            turned = rows[shift:] + rows[:shift]
            parts = {"train": turned * 2, "dev": turned[:3], "test": turned[3:]}
            for part, lines in parts.items():
                text = "".join(f"{line}\n" for line in lines)
                (folder / task / f"{task}_12_{seed}_{part}.tsv").write_text(text, encoding="utf-8")
    files = {
        "metrics.json": METRICS,
        "ontology.json": {
            "words": {"meaning": ["colour", "opposite"], "form": ["plural"]},
            "numbers": {"all": ["count"]},
        },
        "split.json": {"train": TRAIN_TASKS, "dev": [], "test": ["plural"]},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def write_new_tasks(folder: Path, *tasks: str, **sections: list[str]) -> Path:
    """Writes a gym of tasks without train rows, whose answers are scored by exact match, and its split."""
    for task in tasks:
        (folder / task).mkdir(parents=True)
        for part in ("dev", "test"):
            (folder / f"{task}/{task}_2_13_{part}.tsv").write_text("hot\tcold\nbig\tsmall\n")
    (folder / "metrics.json").write_text(json.dumps(dict.fromkeys(tasks, "EM")))
    (folder / "split.json").write_text(json.dumps(sections))
    return folder


def write_ranked_gym(folder):
    """Writes the four tasks of `write_gym` and one per source of options; plural, a test task, has none."""
    gym = write_gym(folder)
    offered = ["No", "Yes", "may be"]
    rows = {
        "given": [dict(input=f"is it {i}", outputs=[offered[i % 2]], options=offered) for i in range(12)],
        "listed": [f"what is {i} ? (A) cat (B) dog (C) cow\t{('cat', 'dog')[i % 2]}" for i in range(12)],
        "label": [f"how is {i} ?\t{('good', 'bad')[i % 2]}" for i in range(12)],
    }
    for task, lines in rows.items():
        (folder / task).mkdir()
        ending = "jsonl" if task == "given" else "tsv"
        lines = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        for part, chosen in (("train", lines), ("dev", lines[:3]), ("test", lines[3:7])):
            text = "".join(f"{line}\n" for line in chosen)
            (folder / task / f"{task}_6_13_{part}.{ending}").write_text(text)
    (folder / "listed" / "listed_6_13_test.tsv").write_text("what ? (A) cat (B) cow\tcow\nwhat ?\tdog\n")
    metrics = json.loads((gym / "metrics.json").read_text()) | dict.fromkeys(rows, "ACC")
    (gym / "metrics.json").write_text(json.dumps(metrics))
    split = {"train": ["colour", "label"], "dev": [], "test": ["given", "listed", "plural"]}
    (gym / "split.json").write_text(json.dumps(split))
    return gym


def write_bart(folder: Path, seed: int = 5, **fields) -> Path:
    """Writes a random plain BART of 2+1 layers with the tokenizer of the shipped tiny BART."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_BART)
    sizes = dict(decoder_layers=1, max_position_embeddings=32, dropout=0.1, init_std=0.3)
    sizes |= dict(vocab_size=len(tokenizer))
    torch.manual_seed(seed)
    bart = BartForConditionalGeneration(tiny_bart_config(**(sizes | fields)))
    bart.final_logits_bias[0, tokenizer.eos_token_id] = -4.0  # otherwise most answers are empty
    bart.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def typed(chosen: dict) -> list[str]:
    """Returns a command line. Lists are several words, True is a bare flag, None and False omit it."""
    words = []
    for name, value in chosen.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None and value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def flags(gym: Path, bart: Path, output_dir: Path, **changed) -> list[str]:
    """Returns a command line for a run of six steps; flag=value changes a flag, None omits it."""
    chosen = dict(do_train=True, initialize_from_vanilla=True, model=bart, train_dir=gym)
    chosen |= dict(output_dir=output_dir, num_experts=2, taskvecs_dim=8, router_hidden_dim=4, init_eps=0.02)
    chosen |= dict(max_input_length=24, max_output_length=6, num_beams=1)
    chosen |= dict(train_batch_size=4, gradient_accumulation_steps=2, total_steps=6, eval_period=3)
    chosen |= dict(learning_rate=0.01, router_lr=0.01, task_model_lr=0.01, warmup_ratio=0.2)
    return typed(chosen | changed)


def run(gym: Path, bart: Path, output_dir: Path, **changed) -> int:
    """Returns the exit code of `main` with `flags(...)`, as in a new process."""
    AcceleratorState._reset_state(reset_partial_state=True)  # otherwise the first run's precision is kept
    return main(flags(gym, bart, output_dir, **changed))


def reopen(run_folder: Path) -> None:
    """Makes --resume load a finished run again, to write its cost."""
    (run_folder / "cost.json").unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """Returns {relative path: content} of all files under a folder except lock files."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(LOCK_FILE)]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def fail_in_step(number: int, command: Callable) -> None:
    """Calls `command()`, which fails in a step (from 1) of its training, as in a power failure."""
    step = Stepper.step

    def failing(self, n):
        if n == number - 1:
            raise RuntimeError("power cut")
        return step(self, n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            command()


class World:
    """A folder with a gym, a BART and the runs made there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.gym, self.bart = write_gym(folder / "gym"), write_bart(folder / "bart")

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def run(self, name: str, **changed) -> Path:
        """Returns the folder of a run that finished with exit code 0. Its pictures are empty files."""
        with without_pictures():
            assert run(self.gym, changed.pop("bart", self.bart), self / name, **changed) == 0
        return self / name

    def resumed(self, name: str, **changed) -> Path:
        """Returns the folder of a run that failed in its fifth step and was resumed."""
        fail_in_step(5, lambda: self.run(name, **changed))
        return self.run(name, **changed, resume=True)

    def copy(self, run_folder: Path, name: str) -> Path:
        return Path(shutil.copytree(run_folder, self / name))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Asserts that weights are equal but for rounding, as sums in another order have it."""
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def assert_same_run(folder: Path, expected: Path) -> None:
    """Asserts that two run folders have the same files, bit for bit, and no others.

    Not compared: descriptions of the process, and figures, which some of these runs fake. The training state
    is compared by value, because pickled bytes of equal values can differ.
    """
    ours, theirs = contents(folder), contents(expected)
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    own = {"run.json", "log.txt", "eval_log.txt", "last/training_state.pt", "best/eval-settings.json"}
    different = {name for name in theirs if ours[name] != theirs[name] and not name.endswith(".png")}
    assert different <= own, different - own
    one, other = (torch.load(f / "last/training_state.pt", weights_only=True) for f in (folder, expected))
    for row, state in other["optimizer"].pop("state").items():
        assert_equal(one["optimizer"]["state"][row], state)
    one["optimizer"].pop("state")
    assert one == other
