"""Studies in this process whose commands are recorded, or executed in forks."""

import json
from pathlib import Path

import fork_server

from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.flags import parse
from routing_moe.config.merge import MergeSettings
from routing_moe.config.train import TrainSettings

SETTINGS = {"train": TrainSettings, "merge": MergeSettings, "finetune": FinetuneSettings}
RESULTS = {
    "merge": "init/config.json",
    "finetuning": "summary.csv",
    "finetune": "results.csv",
    "understand": "report.html",
    "generate": "split.json",
    "gradient": "meta.json",
    "text": "meta.json",
    "fisher": "meta.json",
    "reduce": "meta.json",
}
SCORES, UNSEEN = "best/eval-test-performance.csv", "best/eval-test_tasks-test-performance.csv"


class Recorder:
    """The commands of a study, each [module's last name, argument, ...].

    failing: a part of the commands that fail with 3, leaves_result: after writing a result. really: a part of
    those that are executed; others write a result without content.
    """

    def __init__(self):
        self.commands: list[list[str]] = []
        self.failing, self.really, self.leaves_result = None, None, False

    def python(self, command: list[str]) -> list[str]:
        words = [str(word) for word in command]
        self.commands.append([words[0].rpartition(".")[2], *words[1:]])
        line = " ".join(words)
        fails = bool(self.failing) and self.failing in line
        if fails and not self.leaves_result:
            return ["sh", "-c", "exit 3"]
        if self.really and self.really in line:
            return [*fork_server.client(), "-m", *words]
        if "--equal_flops" in words:
            return ["echo", "7"]
        folder = value_of(words, "--results_dir") or value_of(words, "--output_dir")
        name = self.commands[-1][0]
        result = UNSEEN if value_of(words, "--predict_split") == "test" else RESULTS.get(name, SCORES)
        content = "{}"
        if name == "train" and "--do_predict" not in words:  # the lower the rate, the lower the loss
            result, content = "losses.csv", f",dev_answer_loss\n0,{value_of(words, '--learning_rate')}"
        folder = f"{words[1]}/analysis" if name == "understand" else folder
        if not folder:
            return ["true"]
        path = f"{folder}/{result}"
        return ["sh", "-c", f'mkdir -p "$(dirname "{path}")" && echo "{content}" >"{path}"; exit {3 * fails}']

    def named(self, name: str) -> list[list[str]]:
        return [command for command in self.commands if command[0] == name]

    def names(self) -> list[str]:
        return [command[0] for command in self.commands]

    def settings(self, index: int = -1) -> dict:
        """Returns the flags of a command, which must exist."""
        name, *words = self.commands[index]
        return parse(SETTINGS[name], words)


def value_of(words: list[str], flag: str) -> str | None:
    """Returns the last value of a flag."""
    given = [words[i + 1] for i, word in enumerate(words[:-1]) if word == flag]
    return given[-1] if given else None


def write(path: str | Path, text: str = "") -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_gym(folder: Path, name="gym", train="ab", test="cd") -> str:
    """Writes a gym whose tasks are letters, each with a train file; returns its name."""
    split = {"train": list(train), "dev": [], "test": list(test)}
    write(folder / name / "split.json", json.dumps(split))
    for task in train + test:
        write(folder / f"{name}/{task}/{task}_16_13_train.tsv", "in\tout\n")
    return name
