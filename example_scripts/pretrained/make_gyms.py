"""Write the gyms of the study with a pre-trained model, from a gym in CrossFit's format.

    python example_scripts/pretrained/make_gyms.py data/gym models/pretrained/gyms

twins, few     16 train tasks: eight tasks under opaque names, each with a twin whose labels are permuted, and
               eight unseen ones (four pairs, 16 train rows); few has 32 train rows of each train task.
               true.json: the group of each task: 0 with its labels, 1 with permuted ones.
twins_tuning   two other pairs.
adapters       16 train tasks with their names and labels.
unseen         eight other tasks, three copies of each with 16 train rows: TASK-1, TASK-2, TASK-3.
unseen_tuning  two other tasks, a copy of each.
pairs          the tasks of PAIRED once, and once for each pair: TASK and TASK+OTHER; experts.json: the expert
               of each, alone or with the other of its pair.

The rows of all samples are pooled, and equal inputs are in one file. Test rows are of the test files, each
label equally often as far as there are rows.
Also TASK.jsonl of the 16 rows and of the test rows, for `routing-moe adapt`.
"""

import itertools
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from dataloader.gym import Example, Gym
from dataloader.options import option_source

TWINS = ["glue-sst2", "rotten_tomatoes", "emo", "trec", "tweet_eval-sentiment", "tweet_eval-hate", "sms_spam"]
TWINS += ["financial_phrasebank"]
UNSEEN_TWINS = ["tweet_eval-emotion", "tweet_eval-offensive", "hate_speech_offensive", "sick"]
TUNING_TWINS = ["emotion", "ade_corpus_v2-classification"]
ADAPTERS = ["rotten_tomatoes", "tweet_eval-sentiment", "emo", "tweet_eval-emotion", "trec", "tweet_eval-hate"]
ADAPTERS += [
    "tweet_eval-offensive",
    "sms_spam",
    "scitail",
    "ade_corpus_v2-classification",
    "tweet_eval-irony",
]
ADAPTERS += ["glue-cola", "commonsense_qa", "openbookqa", "social_i_qa", "superglue-copa"]
UNSEEN = [
    "glue-sst2",
    "emotion",
    "financial_phrasebank",
    "hate_speech_offensive",
    "sick",
    "climate_fever",
    "qasc",
]
UNSEEN += ["google_wellformed_query"]
UNSEEN_TUNING = ["hate_speech18", "tweet_eval-stance_feminist"]
PAIRED = ["rotten_tomatoes", "tweet_eval-sentiment", "emo", "tweet_eval-emotion", "trec", "tweet_eval-hate"]
PAIRED += ["commonsense_qa", "openbookqa"]
TRAIN, DEV, TEST, FEW = 128, 24, 60, 16
Rows = dict[str, list[dict]]  # part of a gym: rows


class Pool:
    """The different rows of a task, with their options. Inputs with several answers are left out."""

    def __init__(self, gym: Gym, task: str):
        self.task, metric = task, gym.metric(task)
        read = {part: gym.examples(task, part, "all") for part in ("train", "dev", "test")}
        self.source = option_source(read["train"], metric)
        answers: dict[str, set] = {}
        for example in itertools.chain(*read.values()):
            answers.setdefault(example.input, set()).add(example.outputs)
        used: set[str] = set()
        self.test = self._in_turn(self._rows(read["test"], answers, used))[:TEST]
        self.others = self._rows([*read["train"], *read["dev"]], answers, used)
        random.Random(f"rows of {task}").shuffle(self.others)

    def _rows(self, examples: list[Example], answers: dict, used: set) -> list[dict]:
        rows = []
        for example in examples:
            options = self.source.options(example)
            if len(answers[example.input]) > 1 or example.input in used or example.outputs[0] not in options:
                continue
            used.add(example.input)
            row = {"input": example.input, "outputs": list(example.outputs[:1]), "options": list(options)}
            rows.append(row)
        return rows

    def parts(self, train: int = TRAIN, dev: int = 8) -> Rows:
        return {"train": self.others[DEV:][:train], "dev": self.others[:dev], "test": self.test}

    def few(self, copy: int = 0) -> Rows:
        """Returns other 16 rows for each copy."""
        return self.parts() | {"train": self._in_turn(self.others[DEV:])[copy * FEW :][:FEW]}

    def _in_turn(self, rows: list[dict]) -> list[dict]:
        """Returns the rows so that the first ones have each label about equally often."""
        if self.source.name != "labels":
            return rows
        of_labels = [[row for row in rows if row["outputs"] == [label]] for label in self.source.labels]
        return [row for turn in itertools.zip_longest(*of_labels) for row in turn if row]


def permuted(parts: Rows) -> Rows:
    """Returns the rows with each label replaced by the next one."""
    next_of = lambda row, label: row["options"][(row["options"].index(label) + 1) % len(row["options"])]  # noqa: E731
    change = lambda row: row | {"outputs": [next_of(row, row["outputs"][0])]}  # noqa: E731
    return {part: [change(row) for row in rows] for part, rows in parts.items()}


def write_gym(folder: Path, train: dict[str, Rows], test: dict[str, Rows]) -> None:
    for task, parts in (train | test).items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        for part, rows in parts.items():
            write_rows(folder / task / f"{task}_0_0_{part}.jsonl", rows)
    metrics = dict.fromkeys(train | test, "ACC")
    files = {"metrics": metrics, "split": {"train": [*train], "dev": [], "test": [*test]}}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_twins(
    pools: dict[str, Pool], folder: Path, train: list[str], unseen: list[str], rows: int, dev: int = 8
) -> None:
    names = [f"task{n:02}" for n in range(2 * len(train + unseen))]
    random.Random(17).shuffle(names)
    parts, groups, twin_of = {}, {}, {}
    for task in train + unseen:
        own = pools[task].few() if task in unseen else pools[task].parts(rows, dev)
        for group, its in enumerate((own, permuted(own))):
            name = names.pop()
            parts[name], groups[name], twin_of[name] = its, group, task
    is_unseen = lambda name: twin_of[name] in unseen  # noqa: E731
    seen = {name: parts[name] for name in sorted(parts) if not is_unseen(name)}
    write_gym(folder, seen, {name: parts[name] for name in sorted(parts) if is_unseen(name)})
    (folder / "true.json").write_text(json.dumps({name: groups[name] for name in seen}, indent=1))
    (folder / "twins.json").write_text(
        json.dumps({name: [twin_of[name], groups[name]] for name in parts}, indent=1)
    )


def write_copies(pools: dict[str, Pool], folder: Path, tasks: list[str], copies: int) -> None:
    parts = {f"{task}-{copy + 1}": pools[task].few(copy) for task in tasks for copy in range(copies)}
    write_gym(folder, parts, {})
    tables = {name: its["train"] for name, its in parts.items()} | {task: pools[task].test for task in tasks}
    for name, rows in tables.items():
        of_adapt = [{"input": r["input"], "output": r["outputs"][0], "options": r["options"]} for r in rows]
        write_rows(folder / "tables" / f"{name}.jsonl", of_adapt)


def write_pairs(pools: dict[str, Pool], folder: Path) -> None:
    alone = {task: pools[task].parts() for task in PAIRED}
    experts, parts = {task: n for n, task in enumerate(PAIRED)}, dict(alone)
    for n, (one, other) in enumerate(itertools.combinations(PAIRED, 2), start=len(PAIRED)):
        for name, task in ((f"{one}+{other}", one), (f"{other}+{one}", other)):
            parts[name], experts[name] = alone[task], n
    write_gym(folder, parts, {})
    (folder / "experts.json").write_text(json.dumps(experts, indent=1))


def main(source: str, target: str) -> None:
    gym, folder = Gym(source), Path(target)
    wanted = [*TWINS, *UNSEEN_TWINS, *TUNING_TWINS, *ADAPTERS, *UNSEEN, *UNSEEN_TUNING]
    pools = {task: Pool(gym, task) for task in dict.fromkeys(wanted)}
    write_twins(pools, folder / "twins", TWINS, UNSEEN_TWINS, TRAIN)
    write_twins(pools, folder / "few", TWINS, UNSEEN_TWINS, 32)
    write_twins(pools, folder / "twins_tuning", TUNING_TWINS, [], TRAIN, DEV)
    write_gym(folder / "adapters", {task: pools[task].parts() for task in ADAPTERS}, {})
    write_copies(pools, folder / "unseen", UNSEEN, 3)
    write_copies(pools, folder / "unseen_tuning", UNSEEN_TUNING, 1)
    write_pairs(pools, folder / "pairs")
    for task, pool in pools.items():
        print(f"{task}: {len(pool.others)} rows, {len(pool.test)} test rows, options: {pool.source.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
