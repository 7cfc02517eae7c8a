"""The commands that the fault campaign disturbs: how they start, are killed, and are compared.

Each command writes into one folder, always under the same path, because results contain paths. A command of
one process is a fork of this process, which has imported everything: it starts in milliseconds instead of
seconds. Commands of several processes start as a user would start them.
"""

import contextlib
import importlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate.state import AcceleratorState

# The tests' tiny gyms, models and command lines.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import tiny_grids
import tiny_runs
import tiny_vectors

MARK = "FAULT_CAMPAIGN"  # environment variable that identifies all processes of a command
LONGEST = 600  # seconds until a command counts as hung
SOFT = dict(num_experts=3, init_eps=0.3, total_steps=2, eval_period=1, router_mode="softmax")
LAUNCH_TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
CRASHED = 70  # exit code of a fork that ended with a traceback


@dataclass(frozen=True)
class Command:
    """A command line that writes into `folder`.

    base: a folder that is copied to `folder` before the start. resume: flags added to resume the command.
    launcher: words between `python` and `-m` that start new processes; None: a fork.
    """

    name: str
    module: str
    words: list[str]
    folder: Path
    base: Path | None = None
    resume: tuple[str, ...] = ()
    launcher: tuple[str, ...] | None = None

    def prepare(self) -> None:
        """Restores the folder to its state before the command: a copy of the base, or missing."""
        if self.folder.is_mount():
            clear(self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.base:
            shutil.copytree(self.base, self.folder, dirs_exist_ok=True)

    def start(self, log: Path, resume: bool = False) -> "Running":
        words = [*self.words, *(self.resume if resume else ())]
        if self.launcher is None:
            return forked(lambda: importlib.import_module(self.module).main(words), log)
        return launched([*self.launcher, "-m", self.module, *words], log)


def clear(folder: Path) -> None:
    """Empties a folder that cannot be removed, because something is mounted there."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class Commands:
    """The gyms, models and trained runs that the commands need, in a folder; each is created on first use."""

    NAMES = ("train", "train2", "predict", "grid", "finetune", "ray", "merge", "vectors", "ablate")

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.world = tiny_runs.World(folder)

    def named(self, name: str, folder: Path | None = None) -> Command:
        """Returns the command, which writes into `folder` (default: a new folder)."""
        kind = {"train2": "train", "grid": "finetune", "ray": "finetune"}.get(name, name)
        return getattr(self, f"_{kind}")(name, folder or self.folder / name / "run")

    @cached_property
    def trained(self) -> Path:
        """Returns a run of two steps with soft routes of three experts; read-only."""
        folder = self.folder / "trained"
        words = tiny_runs.flags(self.world.gym, self.world.bart, folder, **SOFT)
        must_succeed(Command("trained", "routing_moe.cli.train", words, folder))
        return folder

    @cached_property
    def few_shot_gym(self) -> Path:
        return tiny_grids.write_few_shot_gym(self.folder / "few_shot", self.world.gym)

    def _train(self, name: str, folder: Path) -> Command:
        changed = dict(do_predict=True, save_period=4, total_steps=12, eval_period=4, checkpoint_period=1)
        if name == "train2":  # two processes: the same examples per step
            changed |= dict(gradient_accumulation_steps=1)
        words = tiny_runs.flags(self.world.gym, self.world.bart, folder, **changed)
        launcher = LAUNCH_TWO if name == "train2" else None
        return Command(name, "routing_moe.cli.train", words, folder, resume=("--resume",), launcher=launcher)

    def _predict(self, name: str, folder: Path) -> Command:
        words = dict(do_predict=True, output_dir=folder, train_dir=self.world.gym, predict_samples="all")
        return Command(name, "routing_moe.cli.train", tiny_runs.typed(words), folder, base=self.trained)

    def _finetune(self, name: str, folder: Path) -> Command:
        changed = dict(save_best=True, learning_rate_list=[0.03, 0.05, 0.1])
        changed |= dict(grid={}, finetune=dict(num_workers=2), ray=dict(num_workers=2, ray="local"))[name]
        words = tiny_grids.grid_flags(self.few_shot_gym, self.world.bart, folder, **changed)
        launcher = None if name == "grid" else ()
        return Command(name, "routing_moe.cli.finetune", words, folder, launcher=launcher)

    def _merge(self, name: str, folder: Path) -> Command:
        words = dict(routes_from=self.trained, model=self.world.bart, output_dir=folder, init_eps=0.01)
        resume = ("--keep_existing",)
        return Command(name, "routing_moe.cli.merge", tiny_runs.typed(words), folder, resume=resume)

    def _vectors(self, name: str, folder: Path) -> Command:
        words = tiny_vectors.flags("fisher", self.world.gym, self.world.bart, folder, total_steps=10)
        return Command(name, "task.task_emb.fisher", words, folder)

    def _ablate(self, name: str, folder: Path) -> Command:
        return Command(name, "routing_moe.cli.ablate", [str(folder)], folder, base=self.trained)


def must_succeed(command: Command) -> float:
    """Runs a command undisturbed and returns its seconds. RuntimeError with its log if it fails."""
    command.folder.parent.mkdir(parents=True, exist_ok=True)
    command.prepare()
    began = time.monotonic()
    running = command.start(command.folder.with_name(f"{command.name}.log"))
    if running.wait(LONGEST) != 0:
        running.kill()
        raise RuntimeError(f"{command.name} failed undisturbed:\n{running.output()[-3000:]}")
    return time.monotonic() - began


# ---- processes


@dataclass
class Running:
    """A started command: a process group, and all processes whose environment has its mark."""

    pid: int
    log: Path
    mark: str | None = None
    code: int | None = field(default=None, init=False)

    def wait(self, seconds: float) -> int | None:
        """Returns the exit code (a signal's is negative), or None if it runs longer than `seconds`."""
        end = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                break
            else:
                time.sleep(0.002)
        return self.code

    def kill(self) -> None:
        """Sends SIGKILL to the group and to processes in separate groups."""
        if self.code is None:
            others = self._marked()
            with contextlib.suppress(ProcessLookupError):  # the process has exited meanwhile
                os.killpg(self.pid, signal.SIGKILL)
            for process in (*others, *self._marked()):  # torch's launcher starts a session for each
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.wait(10)

    def signal(self, number: int) -> None:
        os.killpg(self.pid, number)

    def left_over(self, seconds: float = 30) -> list[str]:
        """Returns names of processes that still run after this many seconds; they are killed."""
        end = time.monotonic() + seconds
        while left := self._marked():
            if time.monotonic() > end:
                for process in left:
                    process.kill()
                return [process.name() for process in left if process.is_running()]
            time.sleep(0.1)
        return []

    def _marked(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self.mark and has_mark(process, self.mark)]

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        is_alive = process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def launched(words: list[str], log: Path) -> Running:
    """Starts `python <words>` in a new session, with its output in `log`."""
    mark = uuid.uuid4().hex
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", MARK: mark}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=tiny_runs.ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    process.returncode = 0  # Running waits for the pid; this keeps Popen from warning
    return Running(process.pid, log, mark)


def forked(act: Callable[[], int | None], log: Path) -> Running:
    """Runs `act` in a fork of this process, in a new session, with its output in `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Running(pid, log)
    code = CRASHED
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        logging.getLogger().handlers.clear()  # those of a test runner
        torch.set_num_threads(1)
        AcceleratorState._reset_state(reset_partial_state=True)
        code = act() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


# ---- comparing results

# Not compared: logs, pictures, and files that describe the process or contain the time.
OWN_FILES = ("run.json", "log.txt", "eval_log.txt", "eval-settings.json", "merge.json", "meta.json", "lock")
OWN_ENDINGS = (".png", ".pdf", ".failed.txt")
MEASURED = ("seconds", "peak_memory_gb")


def differences(folder: Path, expected: Path) -> list[str]:
    """The files that a folder lacks, has in addition, or has with other content than the undisturbed run's.

    Files are compared bit for bit, except measured seconds and memory, the files above, and the training
    state. Its values are compared, because pickle can write equal values as different bytes.
    """
    ours, theirs = (
        {str(p.relative_to(f)): p for p in f.rglob("*") if p.is_file() and compared(p.name)}
        for f in (folder, expected)
    )
    found = [f"lacks {name}" for name in sorted(theirs.keys() - ours.keys())]
    found += [f"has in addition {name}" for name in sorted(ours.keys() - theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name].read_bytes() != theirs[name].read_bytes():
            one, other = readable(ours[name]), readable(theirs[name])
            if one is None or not equal(one, other):
                found.append(f"{name} differs")
    return found


def compared(name: str) -> bool:
    return name not in OWN_FILES and not name.endswith(OWN_ENDINGS)


def readable(path: Path):
    """Returns the values of a file whose bytes may differ, or None for a file whose bytes count."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        return {k: v for k, v in values.items() if k not in MEASURED} if isinstance(values, dict) else None
    if path.suffix == ".npz":
        with np.load(path) as file:
            kept = [name for name in file if name not in (*MEASURED, "data")]
            return {name: (str(file[name].dtype), file[name].tobytes()) for name in kept}
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else None


def equal(one, other) -> bool:
    """Returns whether nested dictionaries, lists and tensors are the same, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and one == other
