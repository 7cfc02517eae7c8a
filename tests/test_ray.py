"""routing-moe parallel --ray: a cluster of two machines, of which one stops; Ctrl-C."""

import os
import signal
import time

import psutil
import pytest
from forks import wait_until
from test_parallel import SAVES, ended, started

ray = pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[ray]'")
pytestmark = pytest.mark.slow
LEAN = dict(num_cpus=1, num_gpus=1, include_dashboard=False, include_log_monitor=False, no_monitor=True)
VARIABLES = {
    "RAY_worker_niceness": "0",  # otherwise other processes have priority
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_initial_delay_ms": "500",
}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        started = Cluster(initialize_head=True, head_node_args=LEAN)
        yield started
        started.shutdown()


def test_ctrl_c_lets_commands_of_a_cluster_save(tmp_path, cluster):
    process = started(tmp_path, {"a/x": SAVES, "b": "touch b"}, "--ray", cluster.address, "--jobs", "2")
    wait_until((tmp_path / "begun").exists)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code, _, errors = ended(process)
    assert (code, (tmp_path / "state").exists(), (tmp_path / "b").exists()) == (130, True, False), errors
    assert time.monotonic() - began < 15  # `b`, which waits for a core, is not waited for


def test_a_machine_that_stops_loses_its_command_alone_and_the_same_call_continues(tmp_path, cluster):
    machine = cluster.add_node(**LEAN)
    (raylet,) = (process.process.pid for process in machine.all_processes["raylet"])
    stays = f"[ $RAY_RAYLET_PID != {raylet} ] || {{ echo $$ $PPID > new; mv new stays; sleep 100; }}"
    jobs = {
        f"{name}/best/x": f"hello; {stays}; mkdir -p {name}/best; pwd >> {name}/best/x" for name in "abcde"
    }
    jobs["bad/x"] = "echo why; exit 3"
    process = started(tmp_path, jobs, "--ray", cluster.address, "--jobs", "6")
    wait_until((tmp_path / "stays").exists)
    command, actor = map(int, (tmp_path / "stays").read_text().split())
    cluster.remove_node(machine, allow_graceful=False)
    psutil.wait_procs([psutil.Process(actor)] if psutil.pid_exists(actor) else [], timeout=30)
    os.killpg(command, signal.SIGKILL)  # a machine takes its commands along
    code, _, errors = ended(process)
    lost = {name for name in "abcde" if not (tmp_path / name / "best/x").exists()}
    assert (code, len(lost), errors.count("failed:")) == (1, 1, 2), errors
    assert f"failed: {min(lost)}/best/x: " in errors
    assert "failed: bad/x: exit code 3; the end of bad.log:\n    why\n" in errors
    jobs["bad/x"] = "mkdir bad; echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS > bad/x"
    code, _, errors = ended(started(tmp_path, jobs, "--ray", cluster.address))
    assert code == 0, errors
    assert (tmp_path / "bad/x").read_text() == "0 1\n"
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in "abcde"}
    assert logs == {name: f"---- {name}/best/x\nhello\n" * (1 + (name in lost)) for name in "abcde"}
    assert {(tmp_path / name / "best/x").read_text() for name in "abcde"} == {f"{tmp_path}\n"}
