"""One page about runs: curves, scores, interactive routes, features, ablation.

    routing-moe report models/moe
    routing-moe report runs/seed42 runs/seed43 runs/seed44 --output_file runs/report.html

The page is a single HTML file that needs no network. It has the results of the ablation if
`routing-moe ablate RUN` was run before; scores are those of RUN/best.
"""

from contextlib import ExitStack
from pathlib import Path

from dataloader.atomic_files import folder_lock, write_text
from dataloader.errors import InputError
from routing_moe.analysis.runs import read_runs
from routing_moe.config.console import run_command
from routing_moe.config.explain import ReportSettings, output_place
from routing_moe.io.files import unwritable


def main(argv: list[str] | None = None) -> int:
    return run_command(run, ReportSettings, argv, __doc__)


def run(settings: ReportSettings) -> None:
    path = output_place(settings, "output_file", "report.html")
    if path.is_dir():
        raise InputError(f"--output_file {path} is a folder; name a file, such as {path / 'report.html'}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output_file {path}: the page is HTML; name a file *.html")
    with ExitStack() as locks:
        for folder in run_folders(settings.runs):
            locks.enter_context(folder_lock(folder, "RUN"))
        flags = (settings.step, settings.routes, settings.task_ontology, settings.feature_file)
        runs = read_runs(settings.runs, *flags)
        from routing_moe.report.page import render  # takes seconds

        title = settings.title or "Routes of " + ", ".join(run.name for run in runs)
        page = render(runs, title)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): {path.resolve().as_uri()}")


def run_folders(runs: tuple[str, ...]) -> list[Path]:
    """Returns the writable folders, which can be locked, of runs or of checkpoints in them."""
    paths = [Path(run).absolute() for run in runs]
    folders = [next((f for f in (path, path.parent) if (f / "run.json").is_file()), None) for path in paths]
    different = {folder.resolve(): folder for folder in folders if folder}
    return [folder for folder in different.values() if not unwritable(folder)]
