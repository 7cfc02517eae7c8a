"""Runs Python commands in forks of a process that has imported the libraries, which takes a command seconds.

    python tests/fork_server.py ADDRESS             the server; it ends when its standard input is closed
    python -S tests/fork_server.py ADDRESS WORD ... what `python WORD ...` does, with the caller's environment

A command starts in a process without state of tests. Its libraries have read the server's environment.
"""

import functools
import json
import os
import select
import signal
import socket
import sys

LIBRARIES = (
    "routing_moe.training.trainer",
    "routing_moe.finetuning.grid",
    "matplotlib.pyplot",
    "pandas",
)


@functools.cache
def start() -> str:
    """Returns the address of a server, which ends with this process."""
    import subprocess
    import tempfile

    address = f"{tempfile.mkdtemp()}/forks"
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        cwd=os.path.dirname(os.path.dirname(__file__)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    start.server = server  # keeps its standard input open
    assert server.stdout.readline() == b"ready\n"
    return address


def client() -> list[str]:
    """Returns the words in place of `python` that run a command in a fork of the server."""
    return [sys.executable, "-S", __file__, start()]


def serve(address: str) -> None:
    import importlib
    import weakref

    sys.path[0] = os.getcwd()
    for name in LIBRARIES:
        importlib.import_module(name)
    for finalizer in weakref.finalize._registry:  # of torch's operators: half of the time of a short command
        finalizer.atexit = False
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing remains of commands that have ended
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                connection.sendall(bytes([run(connection)]))
                os._exit(0)
            connection.close()
    os.unlink(address)
    os.rmdir(os.path.dirname(address))


def run(connection: socket.socket) -> int:
    """Runs the command that a client sends; returns its exit code."""
    import atexit
    import runpy
    import traceback

    message, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
    words, folder, environment = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], folder
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
            runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def ask(address: str, words: list[str]) -> int:
    """Returns the exit code of a command."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        message = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [message], [0, 1, 2])
        return (connection.recv(1) or b"\1")[0]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
