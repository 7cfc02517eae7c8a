"""The flags of the commands that explain routes: inspect_routes, correlate_routes, report and create_gif."""

from dataclasses import dataclass
from pathlib import Path

from dataloader.errors import InputError
from routing_moe.config.choices import ROUTE_KINDS
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, Command, group
from routing_moe.config.plugins import PluginFlags
from routing_moe.io.files import unwritable
from routing_moe.io.hub import is_on_hub

ROUTES = group("routes")
FEATURES = group("features")
TABLES = group("tables")
PAGE = group("the page")
WRITING = group("writing")
ROUTES_HELP = "soft: the softmax at the temperature of that step; soft_t1: at temperature 1; chosen: one-hot, the expert of largest weight in each layer"


# fmt: off
@dataclass(frozen=True, kw_only=True)
class RouteFlags(PluginFlags):
    """Which routes are explained."""

    runs: tuple[str, ...] = ROUTES(REQUIRED, "run folder, a folder with a checkpoint, or a hub name owner/name[@revision]", metavar="RUN", positional=True)
    step: str = ROUTES("best", "evaluation that the routes are of: best (dev score), last, or a step")
    routes: str = ROUTES("soft", ROUTES_HELP, choices=ROUTE_KINDS)
    task_ontology: str | None = ROUTES(None, "ontology file (default: that of the run)")


@dataclass(frozen=True, kw_only=True)
class FeatureFlags(Command):
    """Which features routes are correlated with."""

    feature_file: str | None = FEATURES(None, "CSV file: task, kind:value columns of 0 and 1, or columns of names (default: the gym's skills.csv, else that of the 160 CrossFit tasks)")


@dataclass(frozen=True, kw_only=True)
class InspectSettings(RouteFlags):
    program = "routing-moe inspect-routes"

    neighbours: int = WRITING(5, "nearest tasks listed for each task", range=AT_LEAST_1)
    title: str | None = WRITING(None, "title of the pictures (default: the run's name)")
    output_dir: Path | None = WRITING(None, "folder to write (default: RUN/analysis of a single run)")


@dataclass(frozen=True, kw_only=True)
class CorrelateSettings(RouteFlags, FeatureFlags):
    program = "routing-moe correlate-routes"
    groups = ("routes", "features")

    top: int = TABLES(3, "experts listed for each feature", range=AT_LEAST_1)
    title: str | None = WRITING(None, "title of the pictures (default: the run's name)")
    output_dir: Path | None = WRITING(None, "folder to write (default: RUN/analysis of a single run)")


@dataclass(frozen=True, kw_only=True)
class ReportSettings(RouteFlags, FeatureFlags):
    program = "routing-moe report"
    groups = ("routes", "features")

    title: str | None = PAGE(None, "title of the page (default: the runs' names)")
    output_file: Path | None = PAGE(None, "HTML file (default: RUN/analysis/report.html of a single run)")


@dataclass(frozen=True, kw_only=True)
class GifSettings(PluginFlags):
    program = "routing-moe create-gif"

    run: Path = ROUTES(Path("models/routing_bart"), "folder of a run, with <step>-steps/route.npy")
    routes: str = ROUTES("soft", ROUTES_HELP, choices=ROUTE_KINDS)
    task_ontology: Path | None = ROUTES(None, "ontology file (default: that of the run)", metavar="FILE")
    title: str | None = WRITING(None, "title of the pictures (default: the run's name)")
    output_dir: Path | None = WRITING(None, "folder to write (default: RUN/analysis)")
# fmt: on


def output_place(settings: RouteFlags, flag: str, default: str) -> Path:
    """Returns the file or folder to write. Raises InputError if it is missing or unwritable.

    default: its name in the analysis folder of a single run.
    """
    runs, place = settings.runs, getattr(settings, flag)
    if place is None and (len(runs) > 1 or is_on_hub(runs[0])):
        several = f"{len(runs)} runs" if len(runs) > 1 else f"a run of the hub, {runs[0]}"
        raise InputError(f"--{flag}: must be given for {several}")
    place = place or Path(runs[0], "analysis", default)
    if problem := unwritable(place.parent if flag == "output_file" else place):
        raise InputError(f"--{flag} {problem}")
    return place
