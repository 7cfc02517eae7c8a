"""A disk that is full, and two commands in one folder: refused with one clear error, and nothing is lost."""

import random
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from benchmarks.fault_commands import (
    LONGEST,
    Command,
    Commands,
    Running,
    differences,
    tiny_grids,
    tiny_runs,
    tiny_vectors,
)
from benchmarks.fault_kills import ended_well, kept_folder, log_of, undisturbed

ON_DISK = ("train", "predict", "grid", "merge", "vectors", "ablate")
LEAST, MOST = 0.05, 1.3  # of the room that the undisturbed command's files take; renaming takes more
PAGE = 4096
ROOMY = "1g"
FULL = ("No space left on device", "os error 28", "is the disk full")  # what a clear error says

# ---- a full disk


def disk_campaign(commands: Commands, names: list[str], tries: int, seed: int) -> tuple[dict, list[dict]]:
    """({command: counts} or why it is skipped, failures)."""
    if reason := why_not_mounted(commands.folder / "mounted"):
        return dict(skipped=reason), []
    counts, failures = {}, []
    names = [name for name in ON_DISK if name in names]
    with tqdm(total=tries * len(names), desc="full disks", unit="disk") as bar:
        for name in names:
            bar.set_postfix_str(name)
            counts[name] = dict(disks=0, full=0, resumed=0, equal=0)
            command = commands.named(name)
            undisturbed(command)
            for number in range(tries):
                rng = random.Random(f"{seed}/disk/{name}/{number}")
                size = disk_size(command, rng)
                command.folder.mkdir()
                with mounted(command.folder, size):
                    faults = fill_and_resume(command, counts[name])
                    if faults:
                        kept = kept_folder(command, f"_disk{number}")
                        what = dict(disk=f"{name}/{number}", bytes=size, what=faults[:5], kept=str(kept))
                        failures.append(what)
                command.folder.rmdir()
                bar.update()
    return counts, failures


def fill_and_resume(command: Command, counts: dict) -> list[str]:
    """Runs the command on the small disk, then with room; what is not as it should be."""
    counts["disks"] += 1
    command.prepare()
    running = command.start(log_of(command))
    code = running.wait(LONGEST)
    running.kill()
    faults = []
    if code != 0:
        counts["full"] += 1
        told = running.told()
        clear = [line for line in told.splitlines() if any(words in line for words in FULL)]
        if code not in (1, 2) or "Traceback" in told or not clear:
            last = told.strip().splitlines()[-1:]
            faults.append(f"full: exit code {code}, {len(clear)} clear errors, traceback: "
                          f"{'Traceback' in told}: {''.join(last)[-300:]}")  # fmt: skip
    mount("-o", f"remount,size={ROOMY}", str(command.folder))
    ended = ended_well(command, resume=True)
    counts["resumed"] += not ended
    unequal = [] if ended else differences(command.folder, command.folder.with_name("expected"))
    counts["equal"] += not ended and not unequal
    return faults + ended + unequal


def disk_size(command: Command, rng: random.Random) -> int:
    """Bytes: the base's, and a part of what the command writes."""
    base = room(command.base) if command.base else 0
    own = room(command.folder.with_name("expected")) - base
    return base + max(PAGE, int(rng.uniform(LEAST, MOST) * own)) // PAGE * PAGE


def room(folder: Path) -> int:
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True, text=True)


@contextmanager
def mounted(folder: Path, size: int):
    """A tmpfs of so many bytes in the folder."""
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def why_not_mounted(folder: Path) -> str | None:
    """Why no tmpfs can be mounted here, or None."""
    folder.mkdir(exist_ok=True)
    try:
        with mounted(folder, PAGE):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no tmpfs can be mounted: {(getattr(error, 'stderr', None) or str(error)).strip()}"


# ---- two commands at once

# When the first command is stopped, so that it is there, and its folder as it is, while others try: once it
# has written such a file.
STOPPED_AT = {
    "train": "last/training_state.pt",
    "predict": "best/predictions/*.jsonl",
    "grid": "configurations/*.json",
    "vectors": "by_task/*.npz",
    "ablate": "analysis/ablation/sets/*.json",
}


def second_commands(commands: Commands, first: Command) -> dict[str, tuple[str, list[str]]]:
    """{what it is: (module, words)} of commands that must not run beside the first in its folder."""
    gym, bart, folder = commands.world.gym, commands.world.bart, first.folder
    same = {first.name: (first.module, [*first.words, *first.resume])}
    if first.name in ("train", "predict"):
        train, predict, merge = (commands.named(name) for name in ("train", "predict", "merge"))
        words = {
            "train": (train, "routing_moe.cli.train"),
            "predict": (predict, "routing_moe.cli.train"),
            "merge": (merge, "routing_moe.cli.merge"),
        }
        same |= {
            name: (module, [str(folder) if word == str(command.folder) else word for word in command.words])
            for name, (command, module) in words.items()
            if name not in same
        }
        same["finetune"] = (
            "routing_moe.cli.finetune",
            tiny_grids.grid_flags(gym, bart, folder, task_dir=gym / "colour"),
        )
        same["vectors"] = ("task.task_emb.fisher", tiny_vectors.flags("fisher", gym, bart, folder))
        same["report"] = ("routing_moe.cli.report", [str(folder)])
    return same


def together_campaign(commands: Commands, names: list[str]) -> tuple[dict, list[dict]]:
    """({first command: counts}, failures)."""
    counts, failures = {}, []
    for name in tqdm([name for name in STOPPED_AT if name in names], desc="two at once", unit="command"):
        first = commands.named(name)
        undisturbed(first)
        counts[name] = dict(seconds=0, refused=0, first_undisturbed=0)
        running = stopped(first, STOPPED_AT[name])
        for other, (module, words) in second_commands(commands, first).items():
            counts[name]["seconds"] += 1
            wrong = fault_of_second(first, Command(other, module, words, first.folder))
            counts[name]["refused"] += not wrong
            failures += [dict(together=f"{name}, then {other}", what=wrong)] if wrong else []
        if running.code is None:
            running.signal(signal.SIGCONT)
        code = running.wait(LONGEST)
        running.kill()
        wrong = (
            [f"exit code {code}"] if code else differences(first.folder, first.folder.with_name("expected"))
        )
        counts[name]["first_undisturbed"] += not wrong
        failures += [dict(together=f"{name}, disturbed", what=wrong[:5])] if wrong else []
    return counts, failures


def stopped(command: Command, pattern: str) -> Running:
    """The command, started and stopped (not ended) once a file of this pattern is there."""
    command.prepare()
    running = command.start(log_of(command))
    while running.wait(0) is None and not any(command.folder.glob(pattern)):
        time.sleep(0.001)
    if running.code is None:
        running.signal(signal.SIGSTOP)
    return running


def fault_of_second(first: Command, second: Command) -> list[str]:
    """What is wrong with a second command's end: it must be refused, and leave the folder as it is."""
    before = tiny_runs.contents(first.folder)
    running = second.start(first.folder.with_name("second.log"))
    code = running.wait(LONGEST)
    running.kill()
    told = running.told()
    errors = [line for line in told.splitlines() if line.startswith("error:")]
    wrong = (
        [] if code == 2 and len(errors) == 1 else [f"exit code {code}, {len(errors)} errors: {told[-300:]}"]
    )
    after = tiny_runs.contents(first.folder)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    return wrong + ([f"changed {', '.join(changed[:5])}"] if changed else [])
