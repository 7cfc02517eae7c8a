"""The fault campaign: kills commands, damages files, fills disks, runs two commands at once.

    python benchmarks/faults.py                                    everything, within 15 minutes on two cores
    python benchmarks/faults.py --kills 50 --mutants 10000
    python benchmarks/faults.py --commands train --mutants 0 --no_folders
    python benchmarks/faults.py --kills 0 --no_folders --only config/17       read one damaged file again

The exit code is 1 if results were lost or differ, or if a command did not report one clear error. The JSON
line has counts per command and kind of file, and the first failures; their logs and files are kept in the
folder that is printed. Requires the packages of the tests.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")  # rounding depends on the number of threads
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from benchmarks import measuring
from benchmarks.fault_commands import Commands
from benchmarks.fault_folders import disk_campaign, together_campaign
from benchmarks.fault_kills import kill_campaign
from benchmarks.fault_mutants import distribute, mutant_campaign
from benchmarks.fault_readers import KINDS

FAILURES_SHOWN = 20
# Imported here once, so that forks need not import them.
IMPORTED = ("matplotlib.pyplot", "routing_moe.cli.report", "task.task_emb.fisher")


@dataclass(frozen=True)
class Settings:
    """One field per flag."""

    device: ClassVar[str] = "cpu"

    kills: int
    mutants: int
    disks: int
    commands: list[str]
    kinds: list[str]
    only: list[str]
    no_folders: bool
    seed: int
    work_dir: str | None


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(argv)
    load = os.getloadavg()[0]
    tqdm.monitor_interval = 0  # no monitor thread, because this process forks
    for name in IMPORTED:
        importlib.import_module(name)
    folder = Path(settings.work_dir or tempfile.mkdtemp(prefix="faults_"))
    print(f"logs and files of failures: {folder}", file=sys.stderr)
    measured, failures = run(settings, folder)
    measuring.print_report(
        "faults", settings, load, **measured, failed=len(failures), failures=failures[:FAILURES_SHOWN]
    )
    return 1 if failures else 0


def run(settings: Settings, folder: Path) -> tuple[dict, list[dict]]:
    """Runs all parts of the campaign. Returns ({part: counts}, all failures)."""
    commands = Commands(folder / "commands")
    mutants = [(name, int(n)) for name, n in (word.split("/") for word in settings.only)]
    mutants = mutants or distribute(settings.mutants, settings.kinds)
    parts = {}
    if settings.kills:
        parts["kills"] = lambda: kill_campaign(commands, settings.kills, settings.commands, settings.seed)
    if mutants:
        parts["mutants"] = lambda: mutant_campaign(folder, mutants, settings.seed)
    if not settings.no_folders:
        parts["disks"] = lambda: disk_campaign(commands, settings.commands, settings.disks, settings.seed)
        parts["together"] = lambda: together_campaign(commands, settings.commands)
    measured, failures, seconds = {}, [], {}
    for name, part in parts.items():
        began = time.perf_counter()
        measured[name], failed = part()
        failures += failed
        seconds[name] = time.perf_counter() - began
    return measured | {"seconds": seconds}, failures


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--kills", type=int, default=24, help="number of killed runs, of all commands together (default 24)")
    add("--mutants", type=int, default=2000, help="number of damaged files, of all kinds (default 2000)")
    add("--disks", type=int, default=3, help="number of runs on small disks per command (default 3)")
    add("--commands", nargs="+", choices=Commands.NAMES, default=list(Commands.NAMES), help="default: all")
    add("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND", help="default: all")
    add("--only", nargs="+", default=[], metavar="KIND/N", help="these damaged files instead of --mutants")
    add("--no_folders", action="store_true", help="skip the parts disks and together")
    add("--seed", type=int, default=0)
    add("--work_dir", help="working folder (default: a new temporary folder, which is kept)")
    args = parser.parse_args(argv)
    for name in ("kills", "mutants", "disks"):
        if getattr(args, name) < 0:
            parser.error(f"--{name} {getattr(args, name)} must be at least 0")
    for word in args.only:
        name, _, number = word.partition("/")
        if name not in KINDS or not number.isdecimal():
            parser.error(f"--only {word}: expected a kind and a number, such as {next(iter(KINDS))}/17")
    return Settings(**vars(args))


if __name__ == "__main__":
    sys.exit(main())
