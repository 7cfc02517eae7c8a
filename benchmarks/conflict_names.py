"""One BART on unseen tasks of conflict gyms, under the name of the train task that fits 16 rows of them best.

    python benchmarks/conflict_names.py models/compare_conflict/conflict0.5 dense_flops --output names.csv

The train rows of an unseen task's sample 100 are read under the name of each train task; the name with the
lowest loss is used for the test rows. This is what routes by lowest loss do, without experts. own_name: the
score under the task's own name, equal to that of the run; right: the share of names of the right skill.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoTokenizer, BartForConditionalGeneration

from routing_moe.cli.export import main as export

SAMPLE = "16_100"


def rows_of(gym: Path, task: str, part: str) -> list[list[str]]:
    text = (gym / task / f"{task}_{SAMPLE}_{part}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


@torch.no_grad()
def loss(bart, tokenizer, name: str, rows: list[list[str]]) -> float:
    """Returns the mean loss of the rows' answers under a task name, in nats per token."""
    inputs = tokenizer([f" [{name}] {text}" for text, _ in rows], return_tensors="pt", padding=True)
    answers = tokenizer([f" {answer}" for _, answer in rows], return_tensors="pt", padding=True)["input_ids"]
    labels = answers.masked_fill(answers == tokenizer.pad_token_id, -100)
    return bart(**inputs, labels=labels).loss.item()


@torch.no_grad()
def accuracy(bart, tokenizer, name: str, rows: list[list[str]]) -> float:
    inputs = tokenizer([f" [{name}] {text}" for text, _ in rows], return_tensors="pt", padding=True)
    tokens = bart.generate(**inputs, max_length=8, num_beams=1)
    answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return sum(a.strip() == row[1] for a, row in zip(answers, rows, strict=True)) / len(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="finished folder of compare_conflict.sh")
    parser.add_argument("variants", nargs="+", help="of one BART")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write: a row for each run")
    values = parser.parse_args(argv)
    found = []
    for variant in values.variants:
        for run in sorted((values.folder / "runs" / variant).glob("seed*/")):
            seed = run.name.removeprefix("seed")
            gym, plain = values.folder / "gyms" / seed, values.output.parent / f"{variant}-{seed}"
            export(["--checkpoint", str(run), "--output_dir", str(plain)])
            bart = BartForConditionalGeneration.from_pretrained(plain).eval()
            tokenizer = AutoTokenizer.from_pretrained(plain)
            split = json.loads((gym / "split.json").read_text(encoding="utf-8"))
            skills = json.loads((gym / "skill_routes.json").read_text(encoding="utf-8"))
            own, chosen, right = [], [], []
            for task in split["test"]:
                few, test = rows_of(gym, task, "train"), rows_of(gym, task, "test")
                name = min(split["train"], key=lambda name: loss(bart, tokenizer, name, few))
                own.append(accuracy(bart, tokenizer, task, test))
                chosen.append(accuracy(bart, tokenizer, name, test))
                right.append(skills[name] == skills[task])
            row = {"variant": variant, "seed": int(seed), "own_name": sum(own) / len(own)}
            row |= {"fitting_name": sum(chosen) / len(chosen), "right": sum(right) / len(right)}
            found.append(row)
            print(row, flush=True)
    pd.DataFrame(found).round(6).to_csv(values.output, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
