"""One BART on unseen tasks of conflict gyms, under the name of the train task that fits 16 rows of them best.

    python benchmarks/conflict_names.py models/compare_conflict/conflict0.5 dense_flops --output names.csv

The train rows of an unseen task's first sample are read under the name of each train task; the name with the
lowest loss is used for the test rows. This is what routes by lowest loss do, without experts. own_name: the
score under the task's own name, equal to that of the run; right: the share of names of the right skill.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoTokenizer, BartForConditionalGeneration

from dataloader.encoding import TextFormat
from dataloader.gym import Example, Gym
from dataloader.jsonfile import load_json_object
from routing_moe.cli.export import main as export


def inputs_of(tokenizer, name: str, rows: list[Example]) -> dict[str, torch.Tensor]:
    texts = [TextFormat().source(Example(name, row.sample, row.input, row.outputs)) for row in rows]
    return tokenizer(texts, return_tensors="pt", padding=True)


@torch.no_grad()
def loss(bart, tokenizer, name: str, rows: list[Example]) -> float:
    """Returns the mean loss of the rows' answers under a task name, in nats per token."""
    texts = [TextFormat().target(row.outputs[0]) for row in rows]
    answers = tokenizer(texts, return_tensors="pt", padding=True)["input_ids"]
    labels = answers.masked_fill(answers == tokenizer.pad_token_id, -100)
    return bart(**inputs_of(tokenizer, name, rows), labels=labels).loss.item()


def accuracy(bart, tokenizer, name: str, rows: list[Example]) -> float:
    tokens = bart.generate(**inputs_of(tokenizer, name, rows), max_length=8, num_beams=1)
    answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return sum(a.strip() in row.outputs for a, row in zip(answers, rows, strict=True)) / len(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="finished folder of compare_conflict.sh")
    parser.add_argument("variant", help="of one BART")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write: a row for each run")
    values = parser.parse_args(argv)
    found = []
    for run in sorted((values.folder / "runs" / values.variant).glob("seed*/")):
        seed = int(run.name.removeprefix("seed"))
        folder, plain = values.folder / f"gyms/{seed}", values.output.with_name(f"{values.variant}-{seed}")
        export(["--checkpoint", str(run), "--output_dir", str(plain)])
        model = BartForConditionalGeneration.from_pretrained(plain), AutoTokenizer.from_pretrained(plain)
        gym, split = Gym(folder), load_json_object(folder / "split.json", "the tasks")
        skills = load_json_object(folder / "skill_routes.json", "the skills of tasks")
        for task in split["test"]:
            few, test = (gym.examples(task, part, "first") for part in ("train", "test"))
            name = min(split["train"], key=lambda name, few=few: loss(*model, name, few))
            scores = accuracy(*model, task, test), accuracy(*model, name, test)
            found.append((values.variant, seed, *scores, skills[name] == skills[task]))
    columns = ["variant", "seed", "own_name", "fitting_name", "right"]
    means = pd.DataFrame(found, columns=columns).groupby(columns[:2], as_index=False).mean()
    means.round(6).to_csv(values.output, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
