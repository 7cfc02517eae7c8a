"""Task-level mixture-of-experts on BART: a router reads a task vector and picks the experts of each layer.

Torch and transformers take seconds to import: the names below are imported when they are first used. The
import of the model or its configuration also registers them with transformers, so that `AutoConfig` and
`AutoModelForSeq2SeqLM` load a saved checkpoint by themselves.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routing_moe.answering.routed import Routed
    from routing_moe.config.measures import MEASURES, Measure
    from routing_moe.model.configuration import RoutingBartConfig
    from routing_moe.model.mergers import MERGERS
    from routing_moe.model.modeling import RoutingBartForConditionalGeneration
    from routing_moe.model.route_sources import ROUTE_SOURCES, RouteSource
    from routing_moe.model.routed_model import RoutedModel
    from routing_moe.model.routers import ROUTERS
    from routing_moe.model.selection import ROUTER_MODES, select_routes

__version__ = "0.2.0"
HOMES = {
    "MEASURES": "routing_moe.config.measures",
    "Measure": "routing_moe.config.measures",
    "MERGERS": "routing_moe.model.mergers",
    "ROUTERS": "routing_moe.model.routers",
    "ROUTER_MODES": "routing_moe.model.selection",
    "ROUTE_SOURCES": "routing_moe.model.route_sources",
    "RouteSource": "routing_moe.model.route_sources",
    "Routed": "routing_moe.answering.routed",
    "RoutedModel": "routing_moe.model.modeling",  # which registers all
    "RoutingBartConfig": "routing_moe.model.modeling",
    "RoutingBartForConditionalGeneration": "routing_moe.model.modeling",
    "select_routes": "routing_moe.model.selection",
}
__all__ = list(HOMES)


def _check_packages() -> None:
    """Raises ImportError if a file of the user has the name of a package that comes with this one."""
    for name in ("dataloader", "task"):
        ours, imported = Path(__file__).resolve().parents[1] / name, sys.modules.get(name)
        found = getattr(imported, "__file__", None) if imported else getattr(find_spec(name), "origin", None)
        if found and Path(found).resolve().parent != ours:
            raise ImportError(
                f"{found} hides the package {name!r} of routing_moe ({ours}): rename it, or start Python "
                "where it is not on the path"
            )


_check_packages()


def __getattr__(name: str):
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
