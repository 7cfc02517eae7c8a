"""A file of the user that adds routers, selections, sources of routes, measures, mergers or metrics (`--plugin`)."""

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb

from dataloader.errors import InputError, in_brief
from dataloader.metrics import METRIC_FUNCTIONS
from routing_moe.config.choices import MERGERS, ROUTE_SOURCES, ROUTER_MODES, ROUTERS, SourceKind
from routing_moe.config.flags import Command, group
from routing_moe.config.measures import MEASURES, Measure
from routing_moe.io.logs import early_notes

REGISTRIES = dict(ROUTERS=ROUTERS, ROUTER_MODES=ROUTER_MODES, ROUTE_SOURCES=ROUTE_SOURCES)
REGISTRIES |= dict(MEASURES=MEASURES, MERGERS=MERGERS, METRIC_FUNCTIONS=METRIC_FUNCTIONS)


# fmt: off
@dataclass(frozen=True, kw_only=True)
class PluginFlags(Command):
    plugin: str | None = group("extensions")(None, "Python file that is run first: it adds entries to routing_moe.ROUTERS, ROUTER_MODES, ROUTE_SOURCES, MEASURES, MERGERS, or dataloader.METRIC_FUNCTIONS", metavar="FILE.py", on_resume=True, inherited=True)
# fmt: on


def load_plugin(file: str | None) -> str | None:
    """Runs a plugin, once in a process, and returns its absolute path. Raises InputError."""
    if file is None:
        return None
    path = Path(file).resolve()
    name = f"plugin:{path}"
    if name in sys.modules:
        return str(path)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"--plugin {file}: no such file *.py (without the flag, it is that of run.json)")
    spec = spec_from_file_location(name, path)
    sys.modules[name] = module = module_from_spec(spec)  # as an import does: dataclasses look there
    for of_package in ("routers", "selection", "route_sources", "mergers"):  # fill the registries, with torch
        import_module(f"routing_moe.model.{of_package}")
    before = {registry: dict(entries) for registry, entries in REGISTRIES.items()}
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines or ["?"])[-1]  # of a SyntaxError, or of the last call
        raise InputError(f"--plugin {file}:{line}: {type(error).__name__}: {in_brief(error)}") from None
    a_source = "a class, must be a RouteSource, or a function (model, task_ids_B) -> routes"
    wrong = [
        f"MEASURES[{key!r}] must be a Measure" for key, m in MEASURES.items() if not isinstance(m, Measure)
    ]
    for source, entry in ROUTE_SOURCES.items():
        if isinstance(entry, type) and not issubclass(entry, SourceKind):
            wrong.append(f"ROUTE_SOURCES[{source!r}], {a_source}")
    if wrong:
        del sys.modules[name]
        raise InputError(f"--plugin {file}: {problem}" for problem in wrong)
    for registry, entries in before.items():
        for name in [name for name, old in entries.items() if REGISTRIES[registry].get(name) is not old]:
            early_notes.append(f"note: --plugin {path} replaces {registry}[{name!r}]")
    return str(path)
