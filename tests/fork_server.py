"""Runs Python commands in forks of the tests' process, because imports take a command seconds.

    python -S tests/fork_server.py ADDRESS WORD ...     what `python WORD ...` does where it is called

What tests had patched when the server started stays so, and libraries have read the tests' environment.
"""

import json
import os
import select
import signal
import socket
import sys

LIBRARIES = ("routing_moe.training.trainer", "routing_moe.finetuning.grid", "pandas", "sklearn.cluster")


def serve(address: str, ready) -> None:
    """Waits for commands until the process that forked this one ends. ready: an event, set when it waits."""
    import atexit
    import importlib
    import multiprocessing
    import weakref

    for name in LIBRARIES:
        importlib.import_module(name)
    atexit._clear()  # what this process and its forks share with the tests is not theirs to clean up
    for finalizer in weakref.finalize._registry:  # of torch's operators: half of the time of a short command
        finalizer.atexit = False
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing remains of commands that have ended
    parent = multiprocessing.parent_process().sentinel
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        ready.set()
        while parent not in select.select([listening, parent], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                connection.sendall(bytes([run(connection)]))
                os._exit(0)
            connection.close()


def run(connection: socket.socket) -> int:
    """Runs the command that a client sends; returns its exit code."""
    import atexit
    import runpy
    import traceback

    from accelerate.state import AcceleratorState

    message, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
    words, folder, environment = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate(("r", "w", "w")))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        if words[0] == "-m":
            sys.modules.pop(words[1], None)
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


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        message = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [message], [0, 1, 2])
        sys.exit((connection.recv(1) or b"\1")[0])
