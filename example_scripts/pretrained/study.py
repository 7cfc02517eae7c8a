"""The parts of study.sh that no command of routing-moe has.

study.py rates FOLDER RATE ...           the rate of lowest mean dev answer loss of FOLDER/ARM/RATE; without
                                         such runs of an arm, that of the results
study.py unseen RUN GYM                  scores of unseen tasks, each read as the train task, name and route,
                                         of the lowest loss on 16 rows
study.py grid OUT                        the rates of lowest mean loss on the copies of unseen_tuning
study.py copy OUT NAME MODEL STEPS GRID    a copy TASK-1 of an unseen task: losses of its test rows along all
                                         adapters, and along what each method chooses or learns from 16 rows
"""

import dataclasses
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from dataloader.atomic_files import write_text
from dataloader.encoding import encode
from dataloader.gym import Gym
from dataloader.task_splits import load_split
from routing_moe.answering.adapt import Adaptation
from routing_moe.answering.labelled_rows import labelled_rows
from routing_moe.answering.queries import Query
from routing_moe.answering.routed import Routed
from routing_moe.checkpoints.assemble import find_base
from routing_moe.config.adapt import BASE, CHOOSE, MIX, TUNE, AdaptSettings
from routing_moe.evaluation.route_losses import losses_of_tasks
from routing_moe.results.scores import ScoresFile

MEASURES = ["answer_loss", "rank_accuracy"]
TEXTS = {"no_prefix": True, "prompt_format": "chat", "system": "Give the label or answer."}
TEXTS |= {"max_input_length": 96, "max_output_length": 16}
PUBLISHED = Path(__file__).parents[2] / "docs/results/pretrained_rates.csv"
WAYS = {"choose": CHOOSE, "mixed": MIX, "new": TUNE, "tuned": TUNE}


def rates(folder: Path, tried: list[str]) -> None:
    rows = [
        (file.parts[-4], file.parts[-3], pd.read_csv(file)[MEASURES].mean())
        for file in sorted(folder.glob("*/*/best/eval-dev-performance.csv"))
    ]
    table = pd.DataFrame(
        [(arm, rate, *means) for arm, rate, means in rows], columns=["arm", "rate", *MEASURES]
    )
    table["chosen"] = table.index.isin(table.groupby("arm")["answer_loss"].idxmin())
    if len(table):
        table.round(6).to_csv(folder / "rates.csv", index=False)
    for arm, rate in table.loc[table["chosen"], ["arm", "rate"]].to_numpy():
        if set(tried) <= set(table.loc[table["arm"] == arm, "rate"]):
            print(arm, rate)
    known = pd.read_csv(PUBLISHED).query("chosen and loss.isna()")
    for row in known[~known["method"].isin(table["arm"])].itertuples():
        print(row.method, row.rate)


def grid(out: Path) -> None:
    copies = [path.stem for path in out.glob("gyms/unseen_tuning/tables/*-1.jsonl")]
    tables = [pd.read_csv(out / f"copies/{name}/losses.csv") for name in copies]
    table = (
        pd.concat(tables)
        .dropna(subset="rate")
        .groupby(["method", "rate"], as_index=False)[["loss", "rank_accuracy"]]
        .mean()
    )
    table["chosen"] = table.index.isin(table.groupby("method")["loss"].idxmin())
    table.round(6).to_csv(out / "copies/rates.csv", index=False)
    print(json.dumps({row.method: [row.rate] for row in table[table["chosen"]].itertuples()}))


def unseen(run: str, folder: str) -> None:
    gym, routed = Gym(folder), Routed.load(run, mixed_precision="bf16")
    model, names, found = routed.model, routed.model.config.trained_tasks, []
    ids, routes_KLE = {name: n for n, name in enumerate(names)}, model.routes_for(names)
    for task in load_split(gym.folder / "split.json").test:
        few, rows = gym.examples(task, "train", "first"), gym.examples(task, "test", "first")
        tried = [dataclasses.replace(row, task=name) for name in names for row in few]
        read = encode(tried, routed.tokenizer, routed.text_format, ids)
        losses = losses_of_tasks(model, read, routes_KLE, routed.accelerator, task)
        name = names[losses.reshape(len(names), len(few)).mean(axis=1).argmin()]
        rows = [dataclasses.replace(row, task=name) for row in rows]
        read = encode(rows, routed.tokenizer, routed.text_format, ids)
        losses = losses_of_tasks(model, read, routes_KLE, routed.accelerator, task)
        right = are_right(routed.answers(name, [Query(row.input, row.options) for row in rows]), rows).mean()
        loss = losses.sum() / read.target_lengths_N.sum()
        found.append((task, f"{task}_0_0", "ACC", right, len(rows), loss, right, name))
    columns = ["task_prefix", "sample", "metric", "performance", "n", *MEASURES, "route"]
    table = pd.DataFrame(found, columns=columns)
    table.to_csv(Path(run) / ScoresFile(section="test", prefix="by_loss-").path)


def are_right(answers, rows) -> np.ndarray:
    return np.array([a.answer in row.outputs for a, row in zip(answers, rows, strict=True)], float)


class NoPieces:
    """In the place of the folder that `adapt` keeps losses in."""

    finished = staticmethod(lambda name: None)
    write = staticmethod(lambda name, content: None)


def adaptation(out: Path, table: Path, model: str, how: str, rate: float | None, steps: int) -> Adaptation:
    base, folders = find_base(model), {path.name: path for path in sorted((out / "adapters").glob("*/"))}
    rows = labelled_rows("rows", str(table), "task", "{input}", "{output}")
    asked = dict(base=model, adapters=tuple(map(str, folders.values())), rows=str(table), task="task")
    asked |= dict(how=WAYS[how], rate=rate, steps=steps, lora_rank=8, output_dir=Path())
    asked |= dict(tune_from="new" if how == "new" else "best", mixed_precision="bf16", seed=60)
    return Adaptation(AdaptSettings(**asked), rows, base, folders, TEXTS, NoPieces)


def losses_of(learner: Adaptation, route_LE, rows) -> np.ndarray:
    """Returns (2,): the mean loss of other rows along a route, and the share whose best option is right."""
    own = learner.examples, learner.rows
    learner.examples = rows
    learner.rows = encode(rows, learner.routed.tokenizer, learner.routed.text_format, {"task": 0})
    found = learner.losses(route_LE, np.arange(len(rows))), learner.are_right(route_LE)
    learner.examples, learner.rows = own
    return np.stack(found).mean(axis=1)


def copy(out: Path, name: str, model: str, steps: int, grid: dict[str, list[float]]) -> None:
    tables = next(out.glob(f"gyms/unseen*/tables/{name}.jsonl")).parent
    task = name.rpartition("-")[0]
    test = labelled_rows("rows", str(tables / f"{task}.jsonl"), "task", "{input}", "{output}")
    table, result = tables / f"{name}.jsonl", out / "copies" / name / "losses.csv"
    result.parent.mkdir(parents=True, exist_ok=True)
    part = result.with_suffix(".part")  # what an interrupted call has found
    columns = ["name", "method", "rate", "what", "loss", "rank_accuracy", "seconds"]
    found = pd.read_csv(part, dtype=str, keep_default_na=False).to_numpy().tolist() if part.exists() else []

    def is_known(method: str, rate="", what="") -> bool:
        return [name, method, str(rate), what] in [row[:4] for row in found]

    def judge(learner: Adaptation, method: str, route_LE, what="", rate="", started=math.nan) -> None:
        if not is_known(method, rate, what):
            seconds = time.process_time() - started  # of the search; NaN without one
            found.append([name, method, str(rate), what, *losses_of(learner, route_LE, test), seconds])
            write_text(part, pd.DataFrame(found, columns=columns).to_csv(index=False))

    chooser = adaptation(out, table, model, "choose", None, steps)
    started = time.process_time()
    losses_C = chooser.candidate_losses()[0].mean(axis=1)
    best = chooser.candidates[int(losses_C.argmin())]
    judge(chooser, "lowest_loss", chooser.route(best), best, started=started)
    pool = Routed.load(out / "pool", mixed_precision="bf16")
    nearest = pool.task("task", inputs=[row.input for row in chooser.examples])
    expert = int(torch.as_tensor(nearest.route_LE)[0].argmax())
    trained = next(
        t for t in pool.model.config.task_names if int(pool.task(t).route_LE[0].argmax()) == expert
    )
    judge(chooser, "nearest_text", chooser.route(trained), trained)
    if name.endswith("-1"):
        for candidate in chooser.candidates:
            judge(chooser, "candidate", chooser.route(candidate), candidate)
        mean_LE = sum(map(chooser.route, chooser.candidates[1:])) / (len(chooser.candidates) - 1)
        judge(chooser, "mean", mean_LE, "all adapters")
        alone = adaptation(out, table, str(out / "ties/best"), "choose", None, steps)
        judge(alone, "ties", alone.route(BASE), "all adapters")
    for method, tried in grid.items():
        for rate in tried:
            what = best if method == "tuned" else ""
            if is_known(method, rate, what):
                continue
            torch.manual_seed(60)
            learner, started = adaptation(out, table, model, method, rate, steps), time.process_time()
            judge(learner, method, learner.learned(np.arange(len(learner.rows)), best), what, rate, started)
    part.rename(result)


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "rates":
        rates(Path(words[0]), words[1:])
    elif command == "grid":
        grid(Path(words[0]))
    elif command == "unseen":
        unseen(*words)
    else:
        copy(Path(words[0]), words[1], words[2], int(words[3]), json.loads(words[4]))
