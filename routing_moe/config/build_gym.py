"""The flags of `routing-moe build-gym`."""

import os
from dataclasses import dataclass
from pathlib import Path

from dataloader.building.recipe import SAMPLES
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, SEED, Command, group

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "routing_moe"

TASKS = group("tasks")
SOURCES = group("sources")
RUNNING = group("running")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class BuildGymSettings(Command):
    program = "routing-moe build-gym"
    usage = "--output_dir DIR [flags, see --help]"

    output_dir: Path = TASKS(REQUIRED, "gym folder to write", metavar="DIR")
    tasks: tuple[str, ...] = TASKS((), 'names or patterns such as "glue-*" (default: see --split)', metavar="NAME")
    split: Path | None = TASKS(None, "split file: builds its tasks; its sections go to split.json (default: the 160 published ones, in the sections of random.json)", metavar="FILE")
    samples: tuple[int, ...] = TASKS(SAMPLES, "seeds of the samples", range=SEED, metavar="SEED")
    verify: bool = TASKS(True, "compare with the published MD5 sums")

    mirror: Path | None = SOURCES(None, "read all files from this folder, <host>/<path> of the URL, and download nothing", metavar="DIR")
    cache_dir: Path = SOURCES(CACHE, "folder of downloaded raw files", metavar="DIR")
    accept_changed: bool = SOURCES(False, "use raw files that differ from those of 2021")

    num_workers: int = RUNNING(min(4, os.cpu_count() or 1), "tasks built at the same time", range=AT_LEAST_1, metavar="N")
# fmt: on
