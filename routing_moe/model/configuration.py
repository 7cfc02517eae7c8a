"""The configuration of a routing BART: the fields of a BART, and those of its experts and its router."""

from huggingface_hub.dataclasses import strict
from transformers import BartConfig

from routing_moe.model.mixture_fields import MIXTURE_FIELDS, MixtureFields
from routing_moe.model.saved_config import ROUTING_BART


@strict
class RoutingBartConfig(MixtureFields, BartConfig):
    """`BartConfig` plus the fields of the mixture of experts, which `MixtureFields` documents.

    Raises ValueError, with a line per fault, for an invalid configuration.
    """

    model_type = ROUTING_BART

    def to_bart_config(self) -> BartConfig:
        """Returns the configuration of a plain BART of the same size."""
        other = MIXTURE_FIELDS | {"model_type", "architectures"}
        fields = {name: value for name, value in self.to_dict().items() if name not in other}
        return BartConfig(**fields, architectures=["BartForConditionalGeneration"])
