"""The command that compares systems of a study with a baseline on unseen tasks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from routing_moe.studies.recipes import command


def gains_command(
    folder: Path, baseline: str, names: Iterable[str], file: str, **flags: Any
) -> list[str] | None:
    """Returns the command for the systems with a seed of the baseline, in order; None if there are none.

    folder: with <name>/seed<seed>/<file>. flags: further ones of compute-arg.
    """
    seeds = {
        name: {path.name for path in folder.glob(f"{name}/seed*") if (path / file).is_file()}
        for name in (baseline, *names)
    }
    others = [name for name in seeds if name != baseline and seeds[name] & seeds[baseline]]
    if not others:
        return None
    first, *files = (folder / name / "seed{seed}" / file for name in (baseline, *others))
    common = tuple(sorted(name.removeprefix("seed") for name in seeds[baseline]))
    compared = dict(summary1=first, summary2=tuple(files), names=(baseline, *others), seeds=common)
    return command("routing_moe.cli.compute_arg", **compared, **flags)
