"""Run the commands whose result files are missing, several at a time; the same call continues.

    for seed in 1 2 3; do
        printf '%s\\t%s\\n' "models/seed$seed/best/eval-test-performance.csv" \\
            "routing-moe train --train_dir data/gym --seed $seed --resume --output_dir models/seed$seed"
    done | routing-moe parallel --jobs 3

Standard input has a line RESULT<TAB>COMMAND for each command, which `bash -c` runs. RESULT is the file that
it writes last; its log is RUN.log for RUN/best/FILE and RUN/FILE. Ctrl-C lets running commands save.
Exits with 0 if every result is there, 1 if a command failed, 2 for wrong input, 130 after Ctrl-C.
"""

import os
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from dataloader.errors import InputError, counted
from dataloader.executor import environments, run_in_slots
from dataloader.progress import ProgressBar
from routing_moe.config.console import run_command
from routing_moe.config.parallel import ParallelSettings
from routing_moe.io.shell_jobs import Job, ShellCommand

LINE = "a line is RESULT<TAB>COMMAND: the file that a command writes, a tab, the command"
STOPPING = b"\nwaiting until running commands have saved their state; the next signal stops them at once\n"

say = partial(ProgressBar.write, file=sys.stderr)  # above a progress bar


def main(argv: list[str] | None = None) -> int:
    return run_command(run, ParallelSettings, argv, __doc__, lambda _: "the same call continues")


def run(settings: ParallelSettings) -> int:
    jobs = read_jobs()
    missing = [job for job in jobs if not job.result.is_file()]
    if settings.dry_run:
        print("".join(f"{job.command}\n" for job in missing), end="")
    elif not missing:
        say(f"nothing to do: {'all results are there' if jobs else 'standard input has no lines'}")
    elif failed := run_missing(missing, len(jobs), slots_of(settings, len(missing))):
        say(f"{counted(failed, 'command')} failed; the same call tries again")
        return 1
    return 0


def read_jobs() -> list[Job]:
    """Returns the jobs of standard input. Raises InputError for other lines than RESULT<TAB>COMMAND."""
    if sys.stdin.isatty():
        raise InputError(f"standard input is a terminal; pipe lines into this command: {LINE}")
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
    jobs, numbers, problems = [], {}, []
    for number, line in enumerate(sys.stdin, 1):
        result, _, command = line.strip("\n").partition("\t")
        path = Path(os.path.normpath(result))
        if not (result.strip() and command.strip()):
            problems.append(f"standard input, line {number}: {line.strip()!r} lacks a part; {LINE}")
        elif path in numbers:
            other = f"{path} is the result of line {numbers[path]}, too"
            problems.append(f"standard input, line {number}: {other}; name another file")
        numbers.setdefault(path, number)
        jobs.append(Job(path, command))
    if problems:
        raise InputError(problems)
    return jobs


def slots_of(settings: ParallelSettings, n: int) -> list:
    """Returns the slots of n jobs, on this machine or on a Ray cluster. Raises InputError."""
    n = min(n, settings.jobs)
    if not settings.ray:
        return [ShellCommand(variables, say) for variables in environments(n)]
    try:
        from routing_moe.io.ray_jobs import RemoteCommand, resources_on_ray
    except ModuleNotFoundError:
        raise InputError(f"--ray {settings.ray} needs Ray: pip install '.[ray]'") from None
    resources = resources_on_ray(settings.ray, settings.cpus_per_job, settings.gpus_per_job)
    return [RemoteCommand(resources, say) for _ in range(n)]


def run_missing(missing: list[Job], total: int, slots: list) -> int:
    """Runs the jobs and reports how each ends; returns how many failed."""
    failed = 0
    stop_on_signals()
    with ProgressBar(total=total, initial=total - len(missing), unit="run", leave=True) as bar:
        for job, (error, seconds) in run_in_slots(missing, slots, Job.may_run_beside):
            bar.update()
            if error:
                failed += 1
                end = "".join(f"\n    {line}" for line in job.end_of_log())
                say(f"failed: {job.result}: {error}; the end of {job.log}:{end}")
            else:
                say(f"finished: {job.result} after {seconds:.0f} s")
    return failed


def stop_on_signals() -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, unless they are ignored (nohup)."""

    def stop(*_):
        with suppress(OSError):  # of a terminal that is closed
            os.write(2, STOPPING)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
