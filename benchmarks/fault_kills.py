"""Commands that are killed at random moments, resumed, and compared with the undisturbed run."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from tqdm import tqdm

from benchmarks.fault_commands import LONGEST, Command, Commands, differences, must_succeed

# Relative number of kills per command; commands of several processes get fewer, because they start slowly.
SHARES = dict(train=3, train2=1, predict=2, grid=2, finetune=1, ray=1, merge=1, vectors=2, ablate=2)
TWICE = 0.3  # share of the resumed commands that are killed a second time
WHILE_STARTING = 0.2  # share of the kills before the first file is written
TRIES = 5  # attempts to kill a command before it ends


@dataclass(frozen=True)
class Moments:
    """Times of the undisturbed command in seconds after its start: its first file, its end."""

    first_file: float
    end: float

    def draw(self, rng: random.Random) -> float:
        start, end = (0, self.first_file) if rng.random() < WHILE_STARTING else (self.first_file, self.end)
        return rng.uniform(start, end)


def kills_per_command(kills: int, names: list[str]) -> dict[str, int]:
    """{command: its number of kills}, by SHARES; every command gets one before any gets a second."""
    largest = max(SHARES[name] for name in names)
    rounds = [name for n in range(largest) for name in names if SHARES[name] > n]
    return dict(Counter(islice(cycle(rounds), kills)))


def kill_campaign(commands: Commands, kills: int, names: list[str], seed: int) -> tuple[dict, list[dict]]:
    """Kills and resumes the commands. Returns ({command: counts}, failures)."""
    shares = kills_per_command(kills, names) if names else {}
    return disturb(commands, shares, "kill", seed, kill_and_resume)


def disturb(
    commands: Commands,
    runs: dict[str, int],
    what: str,
    seed: int,
    run: Callable[[Command, Moments, random.Random, Counter], list[str]],
    surroundings: Callable[[Command, random.Random], AbstractContextManager] = lambda *_: nullcontext(),
) -> tuple[dict, list[dict]]:
    """Returns ({command: counts}, failures) of commands that are disturbed and resumed.

    runs: {command: number of runs}. what: "kill" or "disk". run: disturbs and resumes the command once, and
    returns what is wrong. surroundings: a context for each run. Folders that differ are kept next to the
    undisturbed one.
    """
    counts, failures = {}, []
    with tqdm(total=sum(runs.values()), desc=f"{what}s", unit=what) as bar:
        for name, share in runs.items():
            bar.set_postfix_str(name)
            command = commands.named(name)
            moments = undisturbed(command)
            counts[name] = Counter(runs=share, undisturbed_s=moments.end)
            for number in range(share):
                rng = random.Random(f"{seed}/{what}/{name}/{number}")
                with surroundings(command, rng):
                    if faults := run(command, moments, rng, counts[name]):
                        kept = str(kept_folder(command, f"_{what}{number}"))
                        failures.append({what: f"{name}/{number}", "what": faults[:5], "kept": kept})
                bar.update()
    return counts, failures


def undisturbed(command: Command) -> Moments:
    """Runs the command without a kill and renames its folder to `expected`."""
    expected = command.folder.with_name("expected")
    shutil.rmtree(expected, ignore_errors=True)
    began = time.time()
    seconds = must_succeed(command)
    copied = {path.relative_to(command.base) for path in command.base.rglob("*")} if command.base else set()
    new = (
        p for p in command.folder.rglob("*") if p.is_file() and p.relative_to(command.folder) not in copied
    )
    first_file = min(path.stat().st_mtime for path in new) - began
    command.folder.rename(expected)
    return Moments(first_file=min(max(first_file, 0), seconds), end=seconds)


def kill_and_resume(command: Command, moments: Moments, rng: random.Random, counts: Counter) -> list[str]:
    """Kills the command once or twice and resumes it to its end. Returns what is wrong."""
    for _ in range(TRIES):
        command.prepare()
        faults = killed_at(command, moments.draw(rng), resume=False)
        if faults is not None:
            break
    else:
        return ["the command ended before it could be killed"]
    counts["kills"] += 1
    if rng.random() < TWICE:
        again = killed_at(command, moments.draw(rng), resume=True)
        counts["kills"] += again is not None
        faults += again or []
    return faults + resume_faults(command, counts)


def killed_at(command: Command, moment: float, resume: bool) -> list[str] | None:
    """Starts the command and kills it after `moment` seconds. Returns None if it had ended by then."""
    running = command.start(log_of(command), resume)
    if running.wait(moment) is not None:
        return None
    running.kill()
    return [f"still running after a kill at {moment:.3f} s: {name}" for name in running.left_over()]


def resume_faults(command: Command, counts: Counter) -> list[str]:
    """Resumes the command to its end and compares its results. Returns what is wrong."""
    running = command.start(log_of(command), resume=True)
    code = running.wait(LONGEST)
    running.kill()
    output = running.output()
    if code != 0 or "Traceback" in output:
        ended = "still running" if code is None else f"exit code {code}"
        return [f"{ended}: {''.join(output.strip().splitlines()[-1:])[-500:]}"]
    if left := running.left_over():
        return [f"still running: {name}" for name in left]
    counts["resumed"] += 1
    unequal = differences(command.folder, command.folder.with_name("expected"))
    counts["equal"] += not unequal
    return unequal


def log_of(command: Command) -> Path:
    return command.folder.with_name("log.txt")


def kept_folder(command: Command, number: int | str) -> Path:
    """Copies folder and log of a failure. Returns the folder's copy."""
    kept = command.folder.with_name(f"failed{number}")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(command.folder, kept) if command.folder.exists() else kept.mkdir()
    shutil.copy(log_of(command), kept.with_name(f"failed{number}.log"))
    return kept
