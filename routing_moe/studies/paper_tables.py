"""Tables of the finished runs of the paper's study, also of earlier calls, one page with all, a report about routes."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing_moe.studies.gains import gains_command
from routing_moe.studies.recipes import SCORES, UNSEEN_SCORES, command
from routing_moe.studies.runs import call_here
from routing_moe.studies.variants import VARIANTS

SYSTEMS = ("direct", *VARIANTS)
SUMMARY = "summary.csv"
# Not those of one expert, average routes, or routes of each example.
WITHOUT_ROUTES_OF_TASKS = ("multitask", "average", "random")
PAGE = {
    "Cost and mean scores": "overview.md",
    "Train tasks, by category": "train_tasks/comparison.md",
    "Unseen tasks without training on them, by category": "test_tasks/comparison.md",
    "Unseen tasks without training on them: gains over multitask": "zero_shot_over_multitask.md",
    "Unseen tasks after few-shot fine-tuning: gains over multitask": "few_shot_over_multitask.md",
    "Unseen tasks after few-shot fine-tuning: gains over direct fine-tuning": "few_shot_over_direct.md",
}


def write_tables(study) -> int:
    """Writes the tables of a `paper.PaperStudy`; returns 1 if one of them fails, else 0."""
    return PaperTables(study).write()


@dataclass(frozen=True)
class PaperTables:
    study: Any

    @property
    def folder(self) -> Path:
        return self.study.output_dir

    @property
    def tables(self) -> Path:
        return self.folder / "tables"

    def write(self) -> int:
        self.tables.mkdir(parents=True, exist_ok=True)
        codes = []
        if any(self.folder.glob(f"runs/*/*/{SCORES}")):
            codes += [self.compare("train", SCORES, recovery=self.study.recovery), self.overview()]
        if any(self.folder.glob(f"runs/*/*/{UNSEEN_SCORES}")):
            codes.append(self.compare("test", UNSEEN_SCORES))
        codes += [
            self.gains("multitask", "runs", UNSEEN_SCORES, "zero_shot_over_multitask"),
            self.gains("multitask", "few_shot", SUMMARY, "few_shot_over_multitask"),
            self.gains("direct", "few_shot", SUMMARY, "few_shot_over_direct"),
            self.report(),
        ]
        parts = {title: self.tables / name for title, name in PAGE.items() if (self.tables / name).is_file()}
        sections = [f"\n## {title}\n\n{path.read_text()}" for title, path in parts.items()]
        (self.tables / "study.md").write_text("".join([f"# Tables of {self.folder}\n", *sections]))
        routes = f"; routes: {self.tables}/report.html" if (self.tables / "report.html").is_file() else ""
        print(f"Tables: {self.tables}, all on one page: {self.tables}/study.md{routes}")
        return int(any(codes))

    def named(self, folder: str, file: str) -> tuple[str, ...]:
        """Returns the systems with FOLDER/<system>/seed<seed>/FILE, in the order of the table of variants."""
        return tuple(name for name in SYSTEMS if any(self.folder.glob(f"{folder}/{name}/seed*/{file}")))

    def compare(self, section: str, file: str, **flags: Any) -> int:
        """Makes tables and pictures of the scores of a section of the split, train or test."""
        is_compared = any(self.folder.glob(f"runs/multitask/*/{file}"))
        return self.call(
            f"{section}_tasks",
            *("compare_runs", self.folder / "runs"),
            **dict(predict_split=section, output_dir=self.tables / f"{section}_tasks"),
            **dict(order=self.named("runs", "run.json"), baseline="multitask" if is_compared else None),
            **flags,
        )

    def overview(self) -> int:
        is_tuned = set(self.named("few_shot", SUMMARY)) - {"direct"}  # which has no run
        few_shot = self.folder / "few_shot" if is_tuned else None
        order = self.named("runs", SCORES)
        flags = dict(output_dir=self.tables, order=order, few_shot=few_shot)
        return self.call("overview", "overview", self.folder / "runs", **flags)

    def gains(self, baseline: str, folder: str, file: str, table: str) -> int:
        """Prints and writes gains over a baseline of all systems with a file of the same seed."""
        output = self.tables / f"{table}.csv"
        line = gains_command(self.folder / folder, baseline, SYSTEMS, file, output_file=output)
        return call_here(line) if line else 0

    def report(self) -> int:
        runs = [path.parents[1] for path in sorted(self.folder.glob(f"runs/*/seed*/{SCORES}"))]
        routed = [run for run in runs if run.parent.name not in WITHOUT_ROUTES_OF_TASKS]
        return (
            self.call("report", "report", *routed, output_file=self.tables / "report.html") if routed else 0
        )

    def call(self, log: str, module: str, *arguments: Any, **flags: Any) -> int:
        """Calls a command with its output in a log, which is printed if it fails; returns its exit code."""
        file = self.tables / f"{log}.log"
        code = call_here(command(f"routing_moe.cli.{module}", *arguments, **flags), file)
        if code:
            print(file.read_text(), file=sys.stderr)
        return code
