"""The model of lm-evaluation-harness that answers along a task's route: `pip install "routing-moe[lm_eval]"`.

    import lm_eval
    from routing_moe.answering.harness import RoutedLM
    lm_eval.simple_evaluate(model=RoutedLM("models/moe", "rte"), tasks=["rte"])

Releases of the harness after 0.4.13 find it by name, too: --model routing-moe --model_args
pretrained=models/moe,task=rte. The prompts are those of the harness. Models are trained on inputs that begin
with " [task] ", which prefix=True adds; without it, scores are those of another format than the trained one.
"""

import dataclasses

import torch
from lm_eval.models.huggingface import HFLM

from dataloader.errors import InputError
from dataloader.gym import Example
from routing_moe.answering.export import NO_EQUAL
from routing_moe.answering.routed import Routed


class RoutedLM(HFLM):
    """The plain model of a task's route. Everything else is HFLM's."""

    def __init__(self, pretrained: str, task: str, prefix: bool = False, **options):
        """pretrained: a saved model: its folder, a run, or a hub name. task: whose route it is.

        prefix: whether every input begins with the task's name, as in training. options: of HFLM, such as
        batch_size. Raises InputError for a task or a route without a plain model.
        """
        routed = Routed.load(pretrained)
        model, route_LE, texts = routed.model, routed.task(task).route_LE, routed.text_format
        if route_LE is None:
            raise InputError(f"{pretrained} has no route for {task}: routes differ among its examples")
        if not model.has_plain_equivalent(route_LE[None]):
            raise InputError(f"{task}: {NO_EQUAL}")
        if prefix and texts.prompt_format == "chat":
            raise InputError(f"prefix: {pretrained} was trained on chats; use the harness's chat template")
        self.prefix = texts.source(Example(task, task, "", ("",))) if prefix else ""
        dtype, device = options.pop("dtype", None), options.pop("device", None)
        dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype  # "auto": as saved
        plain = model.to_plain(route_LE).to(device or model.device, dtype)
        backend = "seq2seq" if model.config.is_encoder_decoder else "causal"
        super().__init__(plain, backend, tokenizer=routed.tokenizer, **options)

    def loglikelihood(self, requests, **kwargs):
        """Scores the continuations of contexts, as HFLM does."""
        return super().loglikelihood(self._prefixed(requests), **kwargs)

    def generate_until(self, requests, **kwargs):
        """Continues contexts, as HFLM does."""
        return super().generate_until(self._prefixed(requests), **kwargs)

    def _prefixed(self, requests: list) -> list:
        prefixed = ((request, (self.prefix + request.args[0], *request.args[1:])) for request in requests)
        return [dataclasses.replace(request, arguments=arguments) for request, arguments in prefixed]
