"""Full disks, and two commands in one folder: commands must report one clear error and lose no results."""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.fault_commands import LONGEST, Command, Commands, Running, differences, tiny_runs
from benchmarks.fault_kills import disturb, log_of, resume_faults, undisturbed

ON_DISK = ("train", "predict", "grid", "merge", "vectors", "ablate")
# Disk size relative to the undisturbed command's files; temporary files need more than 1.
LEAST, MOST = 0.05, 1.3
PAGE = 4096
ROOMY = "1g"
FULL = ("No space left on device", "os error 28", "is the disk full")  # a clear error contains one of these

# ---- a full disk


def disk_campaign(commands: Commands, names: list[str], tries: int, seed: int) -> tuple[dict, list[dict]]:
    """Runs commands on small disks. Returns ({command: counts} or the reason for skipping it, failures)."""
    if reason := why_not_mounted(commands.folder / "mounted"):
        return dict(skipped=reason), []
    runs = {name: tries for name in ON_DISK if name in names}
    return disturb(commands, runs, "disk", seed, fill_and_resume, small_disk)


def fill_and_resume(command: Command, _moments, _rng, counts: Counter) -> list[str]:
    """Runs the command on the small disk, then resumes it on a large one. Returns what is wrong."""
    command.prepare()
    running = command.start(log_of(command))
    code = running.wait(LONGEST)
    running.kill()
    faults = []
    if code != 0:
        counts["full"] += 1
        output = running.output()
        is_clear = any(words in output for words in FULL)
        if code not in (1, 2) or "Traceback" in output or not is_clear:
            faults.append(f"full: exit code {code}: {''.join(output.strip().splitlines()[-1:])[-300:]}")
    mount("-o", f"remount,size={ROOMY}", str(command.folder))
    return faults + resume_faults(command, counts)


@contextmanager
def small_disk(command: Command, rng: random.Random) -> Iterator[None]:
    """Mounts a disk of random size at the command's folder."""
    command.folder.mkdir()
    with mounted(command.folder, disk_size(command, rng)):
        yield
    command.folder.rmdir()


def disk_size(command: Command, rng: random.Random) -> int:
    """Returns bytes of the base folder plus a random share of the bytes that the command writes."""
    base = bytes_on_disk(command.base) if command.base else 0
    own = bytes_on_disk(command.folder.with_name("expected")) - base
    return base + max(PAGE, int(rng.uniform(LEAST, MOST) * own)) // PAGE * PAGE


def bytes_on_disk(folder: Path) -> int:
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True, text=True)


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Mounts a tmpfs of `size` bytes at the folder."""
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def why_not_mounted(folder: Path) -> str | None:
    """Returns the reason why no tmpfs can be mounted here, or None."""
    folder.mkdir(exist_ok=True)
    try:
        with mounted(folder, PAGE):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no tmpfs can be mounted: {(getattr(error, 'stderr', None) or str(error)).strip()}"


# ---- two commands at once

# The first command is stopped (SIGSTOP) once it has written a file of this pattern: it keeps its lock, but
# writes nothing while other commands start.
STOPPED_AT = {
    "train": "last/training_state.pt",
    "predict": "best/predictions/*.jsonl",
    "grid": "configurations/*.json",
    "vectors": "by_task/*.npz",
    "ablate": "analysis/ablation/sets/*.json",
}


def second_commands(commands: Commands, first: Command) -> list[Command]:
    """Returns the commands that must not run in the first one's folder at the same time."""
    seconds = [replace(first, words=[*first.words, *first.resume])]
    if first.name in ("train", "predict"):
        names = ("train", "predict", "merge", "grid", "vectors")
        seconds += [commands.named(name, first.folder) for name in names if name != first.name]
        seconds.append(Command("report", "routing_moe.cli.report", [str(first.folder)], first.folder))
    return seconds


def together_campaign(commands: Commands, names: list[str]) -> tuple[dict, list[dict]]:
    """Starts second commands in the folder of a stopped one. Returns ({first: counts}, failures)."""
    counts, failures = {}, []
    for name in tqdm([name for name in STOPPED_AT if name in names], desc="two at once", unit="command"):
        first = commands.named(name)
        undisturbed(first)
        counts[name] = dict(seconds=0, refused=0, first_undisturbed=0)
        running = stopped(first, STOPPED_AT[name])
        for second in second_commands(commands, first):
            counts[name]["seconds"] += 1
            wrong = faults_of_second(second)
            counts[name]["refused"] += not wrong
            failures += [dict(together=f"{name}, then {second.name}", what=wrong)] if wrong else []
        if running.code is None:
            running.signal(signal.SIGCONT)
        code = running.wait(LONGEST)
        running.kill()
        unequal = differences(first.folder, first.folder.with_name("expected"))
        wrong = unequal if code == 0 else [f"exit code {code}"]
        counts[name]["first_undisturbed"] += not wrong
        failures += [dict(together=f"{name}, disturbed", what=wrong[:5])] if wrong else []
    return counts, failures


def stopped(command: Command, pattern: str) -> Running:
    """Starts the command and stops it (SIGSTOP) once a file of this pattern exists."""
    command.prepare()
    running = command.start(log_of(command))
    while running.wait(0) is None and not any(command.folder.glob(pattern)):
        time.sleep(0.001)
    if running.code is None:
        running.signal(signal.SIGSTOP)
    return running


def faults_of_second(second: Command) -> list[str]:
    """Runs a second command, which must be refused and must change no file. Returns what is wrong."""
    before = tiny_runs.contents(second.folder)
    running = second.start(second.folder.with_name("second.log"))
    code = running.wait(LONGEST)
    running.kill()
    output = running.output()
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    wrong = []
    if code != 2 or len(errors) != 1:
        wrong.append(f"exit code {code}, {len(errors)} errors: {output[-300:]}")
    after = tiny_runs.contents(second.folder)
    if changed := sorted(name for name in before | after if before.get(name) != after.get(name)):
        wrong.append(f"changed {', '.join(changed[:5])}")
    return wrong
