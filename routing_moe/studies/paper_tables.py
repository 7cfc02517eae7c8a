"""Tables of the finished runs of the paper's study, also of earlier calls, one page with all, a report about routes."""

import subprocess
import sys
from pathlib import Path

from routing_moe.studies.recipes import SCORES, UNSEEN_SCORES
from routing_moe.studies.runs import call_here, python
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


class PaperTables:
    def __init__(self, study):
        self.study, self.folder, self.tables = study, study.output_dir, study.output_dir / "tables"

    def write(self) -> int:
        self.tables.mkdir(parents=True, exist_ok=True)
        codes = []
        if any(self.folder.glob(f"runs/*/*/{SCORES}")):
            codes += [self.compare("train", SCORES, "--recovery", *self.study.recovery), self.overview()]
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

    def named(self, folder: str, file: str) -> list[str]:
        """Returns the systems with FOLDER/<system>/seed<seed>/FILE, in the order of the table of variants."""
        return [name for name in SYSTEMS if any(self.folder.glob(f"{folder}/{name}/seed*/{file}"))]

    def compare(self, section: str, file: str, *flags: str) -> int:
        """Makes tables and pictures of the scores of a section of the split, train or test."""
        order = self.named("runs", "run.json")
        baseline = ["--baseline", "multitask"] if any(self.folder.glob(f"runs/multitask/*/{file}")) else []
        target = str(self.tables / f"{section}_tasks")
        where = ["--predict_split", section, "--output_dir", target]
        return self.call(
            f"{section}_tasks",
            "compare_runs",
            str(self.folder / "runs"),
            *where,
            "--order",
            *order,
            *baseline,
            *flags,
        )

    def overview(self) -> int:
        tuned = [name for name in self.named("few_shot", SUMMARY) if name != "direct"]  # direct has no run
        few_shot = ["--few_shot", str(self.folder / "few_shot")] if tuned else []
        order = ["--order", *self.named("runs", SCORES)]
        return self.call(
            "overview",
            "overview",
            str(self.folder / "runs"),
            "--output_dir",
            str(self.tables),
            *order,
            *few_shot,
        )

    def gains(self, baseline: str, folder: str, file: str, table: str) -> int:
        """Prints and writes gains over a baseline of all systems with a file of the same seed."""
        seeds = sorted(
            path.name.removeprefix("seed")
            for path in self.folder.glob(f"{folder}/{baseline}/seed*")
            if (path / file).is_file()
        )
        others = [
            name
            for name in self.named(folder, file)
            if name != baseline
            and any((self.folder / folder / name / f"seed{seed}" / file).is_file() for seed in seeds)
        ]
        if not others:
            return 0
        first, *files = (
            str(self.folder / folder / name / "seed{seed}" / file) for name in (baseline, *others)
        )
        names = ["--names", baseline, *others, "--seeds", *seeds]
        return call_here(
            [
                "routing_moe.cli.compute_arg",
                "--summary1",
                first,
                "--summary2",
                *files,
                *names,
                "--output_file",
                str(self.tables / f"{table}.csv"),
            ]
        )

    def report(self) -> int:
        runs = sorted(self.folder.glob("runs/*/seed*"))
        routed = [
            str(run)
            for run in runs
            if run.parent.name not in WITHOUT_ROUTES_OF_TASKS and (run / SCORES).is_file()
        ]
        return (
            self.call("report", "report", *routed, "--output_file", str(self.tables / "report.html"))
            if routed
            else 0
        )

    def call(self, log: str, command: str, *arguments: str) -> int:
        """Calls a command with its output in a log, which is printed if it fails; returns its exit code."""
        done = subprocess.run(
            python([f"routing_moe.cli.{command}", *arguments]),
            capture_output=True,
            text=True,
            check=False,
        )
        path = Path(self.tables / f"{log}.log")
        path.write_text(done.stdout + done.stderr)
        if done.returncode:
            print(path.read_text(), file=sys.stderr)
        return done.returncode
