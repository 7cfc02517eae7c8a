"""Imported by the Python scripts in this folder, which run a command without installation."""

import os
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main_of(name):
    """Returns `main` of routing_moe.cli.<name>.

    If this Python lacks what it needs, the script starts again with that of .venv, which the shell scripts
    use too; if there is none, it exits with an error.
    """
    sys.path.insert(0, str(ROOT))
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 (any python3 may start a script)
            raise ImportError(f"Python {sys.version.split()[0]} is older than 3.11")
        return import_module(f"routing_moe.cli.{name}").main
    except ImportError as error:
        python = ROOT / ".venv/bin/python"
        if not python.exists() or Path(sys.prefix) == python.parents[1]:
            sys.exit(f"error: {error}; install with `pip install -e .`, or activate an environment")
        os.execv(python, [str(python), *sys.argv])
