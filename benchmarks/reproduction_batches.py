"""The batches in which a device trains and answers, for the estimate of reproduction.py.

They are chosen by the code that chooses them in a run, for models of the same sizes that take no memory.
"""

from dataclasses import dataclass

from accelerate import Accelerator

from benchmarks import measuring
from routing_moe.config.shared import Recipe
from routing_moe.evaluation.batches import bytes_of_long_example, fitting
from routing_moe.io.memory import ON_CPU
from routing_moe.optim.micro_batches import Cut, tokens_that_fit
from routing_moe.optim.state_memory import BYTES, free_memory

# Fields of the models whose steps have a kind of routes.
MODELS = {
    "plain": dict(num_experts=1),
    "straight_through": dict(router_mode="gumbel_softmax_st"),
    "dense": dict(router_mode="softmax"),
    "random": dict(route_source="random"),
}


@dataclass(frozen=True)
class DeviceBatches:
    """cuts: {kind of routes: where a step is cut}. long_examples: as --predict_batch_size."""

    cuts: dict[str, Cut]
    long_examples: int

    @classmethod
    def on(cls, accelerator: Accelerator, size: str, num_experts: int, num_beams: int) -> "DeviceBatches":
        """Returns the batches that training chooses on a device on which nothing is loaded yet."""
        free, cuts = free_memory(accelerator), {}
        for kind, fields in MODELS.items():
            model = measuring.uninitialised_model(
                size, device="meta", **{"num_experts": num_experts} | fields
            )
            held = BYTES * sum(p.numel() for p in model.parameters())
            tokens = None if free is None else tokens_that_fit(free - held, model)
            cuts[kind] = Cut.on(accelerator, model, Recipe(max_tokens_per_micro_batch=tokens))
        if free is None:
            return cls(cuts, ON_CPU["predict_batch_size"])
        # Between steps, training holds the weights and AdamW's two averages of the mixture.
        config = measuring.model_config(size, num_experts)
        held = 3 * BYTES * measuring.count_parameters(size, num_experts)
        return cls(cuts, fitting(free - held, bytes_of_long_example(config, num_beams, BYTES)))
