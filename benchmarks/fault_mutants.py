"""Reads randomly damaged files: a reader must accept them or refuse them with one clear error.

A mutant is a function of seed, kind and number. A fork reads many of them, with limited memory and an alarm
that kills it. If a mutant crashes it, hangs or needs too much memory, another fork reads the rest.
"""

import json
import random
import resource
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
from accelerate.state import AcceleratorState
from tqdm import tqdm
from transformers.utils import logging as library_logging

from benchmarks import fault_mutations as ways
from benchmarks.fault_commands import Running, forked
from benchmarks.fault_readers import KINDS, Place
from dataloader.errors import InputError

MEMORY = 3 * 2**30  # bytes that a reader may use in addition to this process's
SECONDS = 60  # limit for reading one mutant
OUTCOMES = ("accepted", "refused", "unclear", "traceback", "died")
INSIDE, IN_PLACE = 0.4, 0.06  # shares of the mutants that use the file's format, and that replace the file
LONGEST_LINE = 2000  # characters that a clear error may have
SHOWN = 500  # characters of an error in the report

Mutant = tuple[str, int]  # kind, number


def distribute(count: int, kinds: Sequence[str]) -> list[Mutant]:
    """Returns `count` mutants, distributed evenly over the kinds of files."""
    return [(kinds[n % len(kinds)], n // len(kinds)) for n in range(count)]


def mutate(place: Place, mutant: Mutant, seed: int) -> str:
    """Damages the mutant's file. Returns what was done to it."""
    name, number = mutant
    rng, kind = random.Random(f"{seed}/{name}/{number}"), KINDS[name]
    path, draw = place.folder / kind.path, rng.random()
    if draw < IN_PLACE:
        others = sorted(place.originals.keys() - {path})
        return ways.put_in_place(rng, path, {other.name: place.originals[other] for other in others})
    inside = kind.inside and draw < IN_PLACE + INSIDE
    content, done = rng.choice(kind.inside if inside else ways.ANY)(rng, place.originals[path])
    path.write_bytes(content)
    return done


def read_mutant(place: Place, mutant: Mutant, seed: int) -> dict:
    """Reads a mutant and restores its file. Returns the outcome; the file of a failure is kept."""
    kind = KINDS[mutant[0]]
    path = place.folder / kind.path
    done = mutate(place, mutant, seed)
    outcome, error = outcome_of(kind.read, place, path)
    result = dict(mutant=f"{mutant[0]}/{mutant[1]}", outcome=outcome, mutation=done, error=error)
    if outcome not in ("accepted", "refused"):
        result["kept"] = str(keep(place, mutant, path))
    restore(place, path)
    return result


def outcome_of(read, place: Place, path: Path) -> tuple[str, str]:
    """Returns (one of OUTCOMES, the error) of reading a mutant."""
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        read(place)
    except InputError as error:
        unclear, shown = fault_of(error, path), str(error)[:SHOWN]
        return ("unclear", f"{unclear}: {shown}") if unclear else ("refused", shown)
    except BaseException as error:  # also SystemExit, which a library may raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "site-packages" not in frame.filename] or frames
        places = (f"{Path(frame.filename).name}:{frame.lineno}" for frame in (ours[-1], frames[-1]))
        where = ", ".join(dict.fromkeys(places))
        return "traceback", f"{type(error).__name__}: {str(error)[:SHOWN]} ({where})"
    return "accepted", ""


def fault_of(error: InputError, path: Path) -> str | None:
    """Returns why an error message is unclear, or None if it is clear."""
    text = str(error)
    if not (text.startswith("--") or path.name in text or path.parent.name in text):
        return "does not name a file, folder or flag"
    for fault in error.faults:
        lines = fault.splitlines()
        if any(not line.startswith("  ") for line in lines[1:]):
            return "one error on several lines"
        if max(map(len, lines)) > LONGEST_LINE:
            return f"a line of {max(map(len, lines))} characters"
    return None


def restore(place: Place, path: Path) -> None:
    """Restores the original content of the path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(place.originals[path])


def keep(place: Place, mutant: Mutant, path: Path) -> Path:
    """Copies a damaged file, if it is one, to mutants/<kind>-<number>/. Returns that path."""
    kept = place.folder.with_name("mutants") / f"{mutant[0]}-{mutant[1]}" / path.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        shutil.copy(path, kept)
    return kept


# ---- the campaign


def mutant_campaign(folder: Path, mutants: Sequence[Mutant], seed: int) -> tuple[dict, list[dict]]:
    """Returns ({kind: counts of outcomes}, the mutants that failed, whose files are kept in the folder)."""
    place = Place(folder / "files")
    kinds = list(dict.fromkeys(name for name, _ in mutants))
    place.make(kinds)
    results = folder / "mutants.jsonl"
    results.write_text("")
    counts = {name: Counter(dict.fromkeys(OUTCOMES, 0)) for name in kinds}
    failures, done = [], 0
    check_undamaged(place, kinds, results.with_suffix(".log"))
    with tqdm(total=len(mutants), desc="mutants", unit="file", smoothing=0.05) as bar:
        while done < len(mutants):
            reader = start_reader(place, mutants[done:], seed, results)
            while reader.wait(1) is None:
                bar.update(results.read_bytes().count(b"\n") - bar.n)
            lines = results.read_text().splitlines()
            if len(lines) < len(mutants):  # the next mutant ended the process
                lines.append(json.dumps(died(place, mutants[len(lines)], seed, reader)))
                results.write_text("".join(f"{line}\n" for line in lines))
            found, done = [json.loads(line) for line in lines[done:]], len(lines)
            for result in found:
                counts[result["mutant"].split("/")[0]][result["outcome"]] += 1
            failures += [result for result in found if result["outcome"] not in ("accepted", "refused")]
            bar.update(done - bar.n)
    return {name: dict(mutants=own.total(), **own) for name, own in counts.items()}, failures


def check_undamaged(place: Place, kinds: Sequence[str], log: Path) -> None:
    """Raises RuntimeError unless the undamaged files are accepted."""

    def read() -> None:
        for reader in dict.fromkeys(KINDS[name].read for name in kinds):
            AcceleratorState._reset_state(reset_partial_state=True)
            reader(place)

    reader = forked(read, log)
    if reader.wait(10 * SECONDS) != 0:
        reader.kill()
        raise RuntimeError(f"undamaged files are not accepted:\n{reader.output()[-3000:]}")


def start_reader(place: Place, mutants: Sequence[Mutant], seed: int, results: Path) -> Running:
    """Starts a fork that reads the mutants and appends a line for each to `results`."""

    def read() -> None:
        library_logging.set_verbosity_error()
        library_logging.disable_progress_bar()
        limit = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with results.open("a") as file:
            for mutant in mutants:
                signal.alarm(SECONDS)  # its default action ends the process
                line = json.dumps(read_mutant(place, mutant, seed))
                file.write(f"{line}\n")
                file.flush()

    return forked(read, results.with_suffix(".log"))


def died(place: Place, mutant: Mutant, seed: int, reader: Running) -> dict:
    """Returns the result of a mutant that ended its reader. Keeps its file and restores the original."""
    path = place.folder / KINDS[mutant[0]].path
    restore(place, path)
    done = mutate(place, mutant, seed)
    kept = keep(place, mutant, path)
    restore(place, path)
    error = f"still running after {SECONDS} s"
    if reader.code != -signal.SIGALRM:
        last = "".join(reader.output().strip().splitlines()[-1:])
        error = f"the process ended with {reader.code}: {last[-SHOWN:]}"
    name = f"{mutant[0]}/{mutant[1]}"
    return dict(mutant=name, outcome="died", mutation=done, error=error, kept=str(kept))
