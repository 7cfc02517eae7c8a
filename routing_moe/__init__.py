"""Task-level mixture-of-experts on BART: a router reads a task vector and picks the experts of each layer.

Importing this package registers the model with transformers, so that `AutoConfig` and
`AutoModelForSeq2SeqLM` load a saved checkpoint by themselves.
"""

from transformers import AutoConfig, AutoModelForSeq2SeqLM

from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.model.modeling import RoutingBartForConditionalGeneration
from routing_moe.model.selection import select_routes

AutoConfig.register(RoutingBartConfig.model_type, RoutingBartConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(RoutingBartConfig, RoutingBartForConditionalGeneration, exist_ok=True)

__version__ = "0.1.0"
__all__ = ["RoutingBartConfig", "RoutingBartForConditionalGeneration", "select_routes"]
