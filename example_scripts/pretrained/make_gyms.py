"""Write the gyms of the study with a pre-trained model, from a gym in CrossFit's format.

    python example_scripts/pretrained/make_gyms.py data/gym models/pretrained/gyms

twins, few     16 train tasks: eight tasks under opaque names, each with a twin of other train rows, whose
               labels are in reverse order, and eight unseen ones (four pairs, 16 train rows); few has 32
               train rows of each train task. true.json: a task's group: 0 with its labels, 1 reversed.
               random-SEED.json: groups of equal size that separate half of the pairs.
twins_tuning   four other pairs; their test rows are not used.
adapters       16 train tasks with their names and labels.
unseen         eight other tasks, three copies of each with 16 train rows: TASK-1, TASK-2, TASK-3.
unseen_tuning  two other tasks, a copy of each.
pairs          the tasks of PAIRED once, and once for each pair: TASK and TASK+OTHER; experts.json: the expert
               of each, alone or with the other of its pair.

The rows of all samples are pooled, and equal inputs are in one file. Test rows are of the test files, each
label equally often as far as there are rows, without those that are a part of a train row of any task, or
have one as a part.
Also TASK.jsonl of the 16 rows and of the test rows, for `routing-moe adapt`.
"""

import itertools
import json
import os
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from dataloader.gym import Example, Gym
from dataloader.options import option_source
from dataloader.progress import ProgressBar

TWINS = ["glue-sst2", "rotten_tomatoes", "emo", "trec", "tweet_eval-sentiment", "tweet_eval-hate", "sms_spam"]
TWINS += ["financial_phrasebank"]
UNSEEN_TWINS = ["tweet_eval-emotion", "tweet_eval-offensive", "hate_speech_offensive", "sick"]
TUNING_TWINS = ["poem_sentiment", "ag_news", "scicite", "tweet_eval-stance_hillary"]
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
SEEDS = range(60, 70)  # of random groups
LEAST = 20  # characters of a text that counts as a part of another
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
        self.test = self._in_turn(self._rows(read["test"], answers, used))
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

    def parts(self, train: int = TRAIN, dev: int = 8, twin: int = 0) -> Rows:
        """Returns other train rows for each twin, 0 or 1."""
        rows = self.others[DEV:][twin * TRAIN :][:train]
        return {"train": rows, "dev": self.others[:dev], "test": self.test[:TEST]}

    def keep_new_test_rows(self, known: dict[str, list[str]]) -> None:
        """Leaves out test rows that are, or have as a part, a train row. known: texts of each task's rows."""
        own = set(known[self.task])
        others = [text for task, texts in known.items() if task != self.task for text in texts]
        self.test = [row for row in self.test if plain(row) not in own and not is_part(plain(row), others)]

    def few(self, copy: int = 0) -> Rows:
        """Returns other 16 rows for each copy."""
        return self.parts() | {"train": self._in_turn(self.others[DEV:])[copy * FEW :][:FEW]}

    def _in_turn(self, rows: list[dict]) -> list[dict]:
        """Returns the rows so that the first ones have each label about equally often."""
        if self.source.name != "labels":
            return rows
        of_labels = [[row for row in rows if row["outputs"] == [label]] for label in self.source.labels]
        return [row for turn in itertools.zip_longest(*of_labels) for row in turn if row]


def plain(row: dict) -> str:
    return " ".join(re.findall(r"\w+", row["input"].lower()))


def is_part(text: str, others: list[str]) -> bool:
    long = len(text) >= LEAST
    return any((long and text in other) or (len(other) >= LEAST and other in text) for other in others)


def reversed_labels(parts: Rows) -> Rows:
    """Returns the rows with the first label for the last one, and so on."""

    def change(row: dict) -> dict:
        place = row["options"].index(row["outputs"][0])
        return row | {"outputs": [row["options"][-1 - place]]}

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
    parts, twin_of = {}, {}
    for task in train + unseen:
        pool = pools[task]
        both = (
            [pool.few(), pool.few()] if task in unseen else [pool.parts(rows, dev, twin) for twin in (0, 1)]
        )
        for group, its in enumerate((both[0], reversed_labels(both[1]))):
            name = names.pop()
            parts[name], twin_of[name] = its, (task, group)
    of = lambda tasks: {name: parts[name] for name in sorted(parts) if twin_of[name][0] in tasks}  # noqa: E731
    write_gym(folder, of(train), of(unseen))
    files = {"twins": twin_of, "true": {name: twin_of[name][1] for name in of(train)}}
    files |= {f"random-{seed}": random_groups(twin_of, train, seed) for seed in SEEDS}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))


def random_groups(twin_of: dict[str, tuple[str, int]], train: list[str], seed: int) -> dict[str, int]:
    """Returns two groups of equal size: half of the pairs are separated, a quarter is in each group."""
    drawn = random.Random(seed)
    order = drawn.sample(train, len(train))
    half, quarter = len(train) // 2, len(train) // 4
    groups = {task: (flip, 1 - flip) for task in order[:half] for flip in [drawn.randrange(2)]}
    groups |= {task: (int(n >= quarter),) * 2 for n, task in enumerate(order[half:])}
    return {name: groups[task][twin] for name, (task, twin) in sorted(twin_of.items()) if task in groups}


def write_copies(pools: dict[str, Pool], folder: Path, tasks: list[str], copies: int) -> None:
    parts = {f"{task}-{copy + 1}": pools[task].few(copy) for task in tasks for copy in range(copies)}
    write_gym(folder, parts, {})
    tables = {name: its["train"] for name, its in parts.items()} | {
        task: pools[task].test[:TEST] for task in tasks
    }
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
    gym, folder = Gym(source), Path(f"{target}.part")
    wanted = [*TWINS, *UNSEEN_TWINS, *TUNING_TWINS, *ADAPTERS, *UNSEEN, *UNSEEN_TUNING]
    pools = {task: Pool(gym, task) for task in dict.fromkeys(wanted)}
    known = {task: [plain(row) for row in pool.others] for task, pool in pools.items()}
    for task, pool in ProgressBar(pools.items(), "test rows", len(pools), unit="task"):
        before = len(pool.test)
        pool.keep_new_test_rows(known)
        counts = (
            f"{len(pool.others)} rows, {len(pool.test[:TEST])} test rows, {before - len(pool.test)} left out"
        )
        print(f"{task}: {counts}; options: {pool.source.name}")
    write_twins(pools, folder / "twins", TWINS, UNSEEN_TWINS, TRAIN)
    write_twins(pools, folder / "few", TWINS, UNSEEN_TWINS, 32)
    write_twins(pools, folder / "twins_tuning", TUNING_TWINS, [], TRAIN, DEV)
    write_gym(folder / "adapters", {task: pools[task].parts() for task in ADAPTERS}, {})
    write_copies(pools, folder / "unseen", UNSEEN, 3)
    write_copies(pools, folder / "unseen_tuning", UNSEEN_TUNING, 1)
    write_pairs(pools, folder / "pairs")
    os.replace(folder, target)  # whole, or not at all


if __name__ == "__main__":
    main(*sys.argv[1:])
