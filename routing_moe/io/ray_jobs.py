"""Shell commands on a Ray cluster, whose machines have this package and share the folders."""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping

import ray

from dataloader.errors import InputError, in_brief
from dataloader.executor import GPUS, variables_for
from routing_moe.io.shell_jobs import Job, ShellCommand

TIMEOUT = 10  # seconds in which a cluster must answer; Ray itself tries for minutes
PAUSE = 0.5  # seconds between two looks of a machine at its command


def resources_on_ray(address: str, cpus: int, gpus: float | None) -> dict[str, float]:
    """Connects to a cluster and returns what a job reserves. gpus: None for 1 if there are any.

    Raises InputError if the cluster does not answer, or has no machine with so much.
    """
    try:
        if address != "auto":
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, port), TIMEOUT).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # depends on the kind of address
        problem = f"no cluster answers there ({in_brief(error)}); give HOST:PORT, or auto"
        raise InputError(f"--ray {address}: {problem}") from None
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = float(any("GPU" in machine for machine in machines)) if gpus is None else gpus
    if not any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        wanted = f"--cpus_per_job {cpus}, --gpus_per_job {gpus:g}"
        raise InputError(f"{wanted}: no machine of the cluster has so many")
    return {"num_cpus": cpus, "num_gpus": gpus}


class RemoteCommand:
    """A slot of jobs: a command on the machine where Ray finds the resources for it.

    A machine that stops fails its command. It is not repeated at once: it may run on behind a broken network.
    """

    def __init__(self, resources: Mapping[str, float], say: Callable[[str], None]):
        self.new_actor, self.say = ray.remote(OnMachine).options(**resources).remote, say
        self.variables = dict(os.environ) | variables_for(resources["num_cpus"])

    def start(self, job: Job) -> None:
        self.job, self.has_machine = job, False
        self.actor = self.new_actor(self.variables)
        self.reply = self.actor.__ray_ready__.remote()  # True as soon as the resources are free

    def is_done(self) -> bool:
        if not ray.wait([self.reply], timeout=0)[0]:
            return False
        try:
            self.ended = ray.get(self.reply)
        except ray.exceptions.RayError as error:  # ends with the cause, such as a folder that is not shared
            self.ended = f"Ray: {str(error).splitlines()[-1].strip()}", 0.0
        if self.ended is True:
            self.has_machine = True
            self.say(f"started: {self.job.result}")
        if not isinstance(self.ended, tuple):
            self.reply = self.actor.look.remote(os.getcwd(), self.job)
        return isinstance(self.ended, tuple)

    def outcome(self) -> tuple[str, float]:
        ray.kill(self.actor)  # which gives its resources back
        return self.ended

    def interrupt(self) -> None:
        if self.has_machine:
            self.actor.interrupt.remote()
        else:
            ray.kill(self.actor)


class OnMachine(ShellCommand):
    """The actor of a command, on its machine."""

    def look(self, folder: str, job: Job) -> tuple[str, float] | None:
        """Returns the outcome, None while the command runs, which the first call starts."""
        if not self.job:
            os.chdir(folder)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it, for commands, too
            self.variables = self.variables | {GPUS: ",".join(map(str, ray.get_gpu_ids()))}
            self.start(job)
        time.sleep(PAUSE)
        return self.outcome() if self.is_done() else None
