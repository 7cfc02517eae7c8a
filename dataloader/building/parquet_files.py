"""The parquet files of a split, chosen by their paths in a data set's repository on the hub."""

from __future__ import annotations

import re

from dataloader.building.sources import Unavailable, UnknownName

CONVERTED = "refs/convert/parquet"  # revision with the files that the hub made from a data set's script

# cola/train-00000-of-00001.parquet, data/train-00000-of-00002-0a1b2c.parquet, plain_text/train.parquet
_OWN = re.compile(r"(?:data/)?(?:(?P<config>[^/]+)/)?(?P<split>[\w.]+?)(?:-\d+-of-\d+(?:-\w+)?)?\.parquet")
# cola/train/0000.parquet, cola/partial-train/0000.parquet
_CONVERTED = re.compile(r"(?P<config>[^/]+)/(?P<partial>partial-)?(?P<split>[^/]+)/\d{4}\.parquet")
DEFAULTS = ("", "default", "plain_text")  # what the hub calls the configuration of a data set with one


def select_parquet(names: list[str], repository: str, config: str, split: str) -> list[str]:
    """Returns the paths, sorted, of a split's files.

    names: paths of all files of the repository. config: "" for the only configuration or the default one.
    Raises Unavailable if there is no such configuration or split, or if only a part of it was converted.
    """
    matches = [(name, _CONVERTED.fullmatch(name) or _OWN.fullmatch(name)) for name in sorted(names)]
    files = [(name, match.groupdict()) for name, match in matches if match]
    configs = {groups["config"] or "" for _, groups in files}
    if not configs:
        raise Unavailable(f"{repository} has no parquet files")
    chosen = _configuration(configs, repository, config)
    files = [(name, groups) for name, groups in files if (groups["config"] or "") == chosen]
    of_split = [(name, groups) for name, groups in files if groups["split"] == split]
    if not of_split:
        splits = ", ".join(sorted({groups["split"] for _, groups in files}))
        raise UnknownName(f"{repository} {chosen} has no split {split} (it has {splits})".replace("  ", " "))
    if any(groups.get("partial") for _, groups in of_split):
        raise Unavailable(f"{repository} {chosen}: the hub has converted only a part of the split {split}")
    return [name for name, _ in of_split]


def _configuration(configs: set[str], repository: str, config: str) -> str:
    if config in configs:
        return config
    default = [name for name in DEFAULTS if name in configs]
    if default and (not config or len(configs) == 1):
        return default[0]
    if not config and len(configs) == 1:
        return next(iter(configs))
    known = ", ".join(sorted(configs))
    raise UnknownName(f"{repository} has no configuration {config or 'by default'} (it has {known})")
