"""Runs of a study: folders that commands fill, several at a time, each after the runs that it needs.

A run is finished when its result file exists; a second call does only the others. Runs go side by side on
this machine, each with its share of the GPUs, or on a Ray cluster, as tasks. Ctrl-C reaches the commands,
which save their state; the same call continues.
"""

import csv
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dataloader.atomic_files import folder_lock, write_text
from dataloader.errors import in_brief
from routing_moe.io.process_pool import gpu_of, visible_gpus, worker_environment
from routing_moe.io.ray_cluster import remote_function

FINISHED = "finished"  # the result that the runner itself writes after the last command
NESTED = "ROUTING_MOE_FLAGS_ONLY"  # in the environment of commands: their flags are complete, variables do not count
TIMES_FILE = "times.csv"  # of every run, also of earlier calls: name, seconds, how it ended
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_writing = threading.Lock()


@dataclass(frozen=True)
class Run:
    """A folder and what fills it.

    name: in messages and times.csv, such as "clusters/seed11". commands: returns the arguments of `python -m`
    of each command; called when all runs of `needs` are finished. result: the file that the last command
    writes, relative to the folder. printed: the runner writes the last line that the last command prints.
    touched: the runner makes an empty `result`, as it does for FINISHED. partial: a command that fails may have
    written a result of what did not fail. temporary: folders in it that are deleted when it is finished. log: by
    default next to the folder.
    """

    name: str
    folder: Path
    commands: Callable[[], list[list[str]]] = field(compare=False)
    needs: tuple["Run", ...] = field(default=(), compare=False)
    result: str = FINISHED
    printed: bool = False
    touched: bool = False
    partial: bool = False
    temporary: tuple[str, ...] = ()
    log: Path | None = None

    @property
    def is_finished(self) -> bool:
        return (self.folder / self.result).is_file()

    @property
    def log_file(self) -> Path:
        return self.log or self.folder.with_name(self.folder.name + ".log")


@dataclass
class Runner:
    """Does runs, `jobs` at a time. folder: of times.csv. ray: address of a Ray cluster; None: this machine.

    threads: OMP_NUM_THREADS of each run on this machine, if the environment does not set it; None: the cores
    divided by `jobs`.
    """

    folder: Path
    jobs: int = 1
    ray: str | None = None
    threads: int | None = None

    def run(self, runs: Iterable[Run]) -> list[Run]:
        """Does what is not finished of the runs and of what they need; returns what is not finished then.

        Raises KeyboardInterrupt after Ctrl-C, when all running commands have saved their state.
        """
        runs = list(dict.fromkeys(with_needs(runs)))
        waiting, running = [run for run in runs if not run.is_finished], {}
        if not waiting:
            return []
        with folder_lock(self.folder), self._caller() as caller, ThreadPoolExecutor(self.jobs) as pool:
            while running or (waiting and not caller.stopping):
                waiting = [run for run in waiting if not run.is_finished]  # by a command of another run
                ready = [run for run in waiting if all(need.is_finished for need in run.needs)]
                if caller.stopping or not (ready or running):  # the others need a run that failed
                    waiting, ready = [], []
                for run in ready[: self.jobs - len(running)]:
                    waiting.remove(run)
                    running[pool.submit(self._do, run, caller)] = run
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    future.result()
        if caller.stopping:
            raise KeyboardInterrupt
        return [run for run in runs if not run.is_finished]

    @contextmanager
    def _caller(self) -> Iterator["OnThisMachine | OnRay"]:
        """Gives what calls commands; Ctrl-C and SIGTERM stop it in the block."""
        calling = OnRay.connected(self) if self.ray else nullcontext(OnThisMachine(self))
        with calling as caller, handled(lambda *_: caller.stop()):
            yield caller

    def _do(self, run: Run, caller) -> None:
        """Calls the commands of a run until one fails; their output goes to its log."""
        start, error = time.monotonic(), None
        tell(f"started  {run.name}")
        run.log_file.parent.mkdir(parents=True, exist_ok=True)
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            printed = caller.call(run.commands(), run.log_file, run.printed)
        except Exception as raised:
            error = in_brief(getattr(raised, "cause", None) or raised)  # Ray wraps the original error
            with run.log_file.open("a") as log:
                print(f"error: {error}", file=log)
        if not error:
            write_result(run, printed)
        elif run.partial and run.is_finished:
            file = run.folder / run.result
            file.rename(file.with_name(f"incomplete-{file.name}"))
        if run.is_finished:
            for name in run.temporary:
                shutil.rmtree(run.folder / name, ignore_errors=True)
        ended = "finished" if run.is_finished else "interrupted" if caller.stopping else "failed"
        self._note_time(run, seconds := round(time.monotonic() - start), ended)
        tell(f"{ended:8} {run.name} after {seconds} s")

    def _note_time(self, run: Run, seconds: int, ended: str) -> None:
        with _writing, (self.folder / TIMES_FILE).open("a") as file:
            if not file.tell():
                print("run,seconds,ended", file=file)
            print(f"{run.name},{seconds},{ended}", file=file)


def tell(line: str) -> None:
    """Prints a line at once, so that lines of several threads are not joined."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def counting_run(
    study: Path, folder: Path, file: str, training: Callable[[], list[str]], needs: tuple[Run, ...]
) -> Run:
    """Returns the run that counts the steps in which a training has the FLOPs of another run, the last of `needs`.

    study: folder that names are relative to. folder: of the training; the number goes into a file beside it
    (`counted_steps`). training: returns its command.
    """
    result, flops_of = f"{folder.name}.{file}", str(needs[-1].folder)
    return Run(
        str((folder.parent / result).relative_to(study)),
        folder.parent,
        lambda: [[*training(), "--equal_flops", flops_of]],
        needs,
        result,
        printed=True,
        log=folder.with_name(f"{folder.name}.log"),
    )


def counted_steps(run: Run) -> int:
    return int((run.folder / run.result).read_text().split()[-1])


def with_needs(runs: Iterable[Run]) -> Iterator[Run]:
    for run in runs:
        yield from with_needs(run.needs)
        yield run


def write_result(run: Run, printed: str = "") -> None:
    """Writes the result of a run whose commands have ended, unless they write it."""
    if run.printed or run.touched or run.result == FINISHED:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_text(run.folder / run.result, printed)


def run_in_turn(runs: Iterable[Run]) -> int:
    """Does what is not finished of the runs and of what they need, one after the other, on this terminal.

    Returns the exit code of the first command that fails, else 0.
    """
    for run in dict.fromkeys(with_needs(runs)):
        if not run.is_finished:
            if code := call_all(*run.commands()):
                return code
            write_result(run)
    return 0


def call_here(command: list[str], log: Path | None = None) -> int:
    """Calls `python -m` with these arguments; returns its exit code. Its output goes to the terminal, or to a log.

    Raises KeyboardInterrupt after Ctrl-C or SIGTERM, when the command has saved its state.
    """
    processes, received = [], []

    def pass_on(number: int, _) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)

    with log.open("wb") if log else nullcontext() as file, handled(pass_on):
        process = subprocess.Popen(
            python(command),
            stdout=file,
            stderr=file,
            env=os.environ | {NESTED: "yes"},
            start_new_session=True,
        )
        processes.append(process)
        code = process.wait()
    if received:
        raise KeyboardInterrupt
    return 128 - code if code < 0 else code


def call_all(*commands: list[str]) -> int:
    """Calls commands on this terminal until one fails; returns its exit code, else 0."""
    return next((code for command in commands if (code := call_here(command))), 0)


def stopping_signal() -> signal.Signals:
    """Returns what stops a started process: Ctrl-C; SIGTERM where it ignores Ctrl-C as this process does, as under nohup."""
    return signal.SIGTERM if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else signal.SIGINT


@contextmanager
def handled(handler: Callable) -> Iterator[None]:
    """Calls the handler for the signals that stop a process in the block, except those that are ignored, as by nohup."""
    stopping = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in stopping}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def python(command: list[str]) -> list[str]:
    return [sys.executable, "-m", *command]


# ---- where commands run


def call(
    commands: list[list[str]],
    log: Path,
    printed: bool,
    variables: dict[str, str],
    started: Callable | None = None,
) -> str:
    """Calls `python -m` with the arguments of each command; returns its last printed line if `printed`.

    Otherwise its output goes to the log, and "" is returned. started: called with each process. Each has a
    process group of its own, so that Ctrl-C in a terminal does not reach it in addition to the signal that is
    sent to it here. Raises CalledProcessError for the first command that fails.
    """
    text = ""
    with log.open("ab") as file:
        for command in commands:
            process = subprocess.Popen(
                python(command),
                stdout=subprocess.PIPE if printed else file,
                stderr=file if printed else subprocess.STDOUT,
                env=os.environ | {NESTED: "yes"} | variables,
                start_new_session=True,
                text=True,
            )
            if started:
                started(process)
            try:
                text, _ = process.communicate()
            except KeyboardInterrupt:  # of a Ray task that is cancelled
                os.killpg(process.pid, stopping_signal())
                process.wait()
                raise
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command[0])
    return (text or "").strip().rpartition("\n")[2]


class OnThisMachine:
    """Calls commands as processes, each run with its share of the GPUs. stopping: after Ctrl-C."""

    def __init__(self, runner: Runner):
        self.stopping = False
        self.processes: set[subprocess.Popen] = set()
        self.free_workers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()  # their variables
        threads = {"OMP_NUM_THREADS": str(runner.threads)} if runner.threads else {}
        variables = worker_environment(runner.jobs) | threads
        variables |= {name: os.environ[name] for name in variables if name in os.environ}
        gpus = visible_gpus()
        for worker in range(runner.jobs):
            self.free_workers.put(variables | (gpu_of(worker, runner.jobs, gpus) if gpus else {}))

    def call(self, commands: list[list[str]], log: Path, printed: bool) -> str:
        variables = self.free_workers.get()
        processes: list[subprocess.Popen] = []

        def started(process: subprocess.Popen) -> None:
            processes.append(process)
            self.processes.add(process)
            if self.stopping:
                process.send_signal(stopping_signal())

        try:
            return call(commands, log, printed, variables, started)
        finally:
            self.processes.difference_update(processes)
            self.free_workers.put(variables)

    def stop(self) -> None:
        """Sends `stopping_signal` to all processes: trainings save their state, and end at once after a second one."""
        self.stopping = True
        for process in list(self.processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, stopping_signal())


class OnRay:
    """Calls the commands of a run as a task of a Ray cluster, whose machines share the folders."""

    def __init__(self, remote: Callable):
        self.remote, self.stopping, self.pending = remote, False, set()

    @classmethod
    @contextmanager
    def connected(cls, runner: Runner) -> Iterator["OnRay"]:
        with remote_function(call_in, runner.ray, runner.jobs) as remote:
            yield cls(remote)

    def call(self, commands: list[list[str]], log: Path, printed: bool) -> str:
        import ray

        task = self.remote(os.getcwd(), commands, log.absolute(), printed)
        self.pending.add(task)
        try:
            return ray.get(task)
        finally:
            self.pending.discard(task)

    def stop(self) -> None:
        import ray

        self.stopping = True
        for task in list(self.pending):
            ray.cancel(task)


def call_in(folder: str, commands: list[list[str]], log: Path, printed: bool) -> str:
    """Does `call` in a working directory, on the machine of a Ray task."""
    os.chdir(folder)
    return call(commands, log, printed, {})


# ---- what is not finished


def end_of_log(run: Run, lines: int = 5) -> str:
    """Returns the last lines of a run's log, each without earlier states of a progress bar."""
    text = run.log_file.read_bytes().decode(errors="replace") if run.log_file.is_file() else ""
    return "\n".join(
        "    " + line.rstrip("\r").split("\r")[-1] for line in text.rstrip().split("\n")[-lines:]
    )


def report_unfinished(runs: list[Run]) -> int:
    """Prints the end of the log of each run; returns the exit code, 1 if there are any."""
    for run in runs:
        end = f"the end of {run.log_file}:\n{end_of_log(run)}" if run.log_file.is_file() else "it was skipped"
        print(f"not finished: {run.name}; {end}", file=sys.stderr)
    return 1 if runs else 0


def minutes(folder: Path) -> float:
    """Returns the minutes of all runs of the study in a folder, also of earlier calls."""
    times = folder / TIMES_FILE
    if not times.is_file():
        return 0.0
    with times.open() as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file)) / 60
