"""The model of lm-evaluation-harness that answers along a task's route: `pip install "routing-moe[lm_eval]"`.

    import lm_eval
    from routing_moe.answering.harness import RoutedLM
    lm_eval.simple_evaluate(model=RoutedLM("models/moe", "rte"), tasks=["rte"])

Releases of the harness after 0.4.13 find it by name, too: --model routing-moe --model_args
pretrained=models/moe,task=rte. The prompts are those of the harness. Models are trained on inputs that begin
with " [task] ", which prefix=True adds; without it, scores are those of another format than the trained one.
"""

import dataclasses
from types import SimpleNamespace

import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoConfig, AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.errors import InputError
from dataloader.gym import Example
from routing_moe.answering.export import NO_EQUAL
from routing_moe.config.choices import MIXTURES
from routing_moe.io.hub import local_folder
from routing_moe.model.loading import auto_class
from routing_moe.model.modeling import RoutingBartForConditionalGeneration  # noqa: F401 (registers all)
from routing_moe.task_choice.choice import Resolver, missing_row_error
from routing_moe.task_choice.choose import Chooser


class RoutedLM(HFLM):
    """The plain model of a task's route. Everything else is HFLM's."""

    def __init__(self, pretrained: str, task: str, prefix: bool = False, **options):
        """pretrained: a saved model: its folder, a run, or a hub name. task: whose route it is.

        prefix: whether every input begins with the task's name, as in training. options: of HFLM, such as
        batch_size. Raises InputError for a task or a route without a plain model.
        """
        folder = local_folder(pretrained)
        folder = folder / "best" if (folder / "best").is_dir() else folder
        config = AutoConfig.from_pretrained(folder)
        if config.model_type not in MIXTURES:
            raise InputError(f"{folder} holds a {config.model_type!r} model, which has no routes")
        dtype, device = options.pop("dtype", None), options.pop("device", None)
        model = auto_class(config).from_pretrained(folder, dtype=dtype or "auto")
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        resolver = Resolver.of(config, source="average" if config.num_experts == 1 else None, rule="stored")
        if not resolver.kind.per_task:
            raise InputError(f"{pretrained} has no route for {task}: routes differ among its examples")
        if not resolver.has(task):
            raise missing_row_error(pretrained, "route", [task], resolver.known, "give one of these as task=")
        chooser = Chooser(model, resolver)
        route_LE = chooser.route(chooser.choose(task))
        if not model.has_plain_equivalent(route_LE[None]):
            raise InputError(f"{task}: {NO_EQUAL}")
        backend = "seq2seq" if config.is_encoder_decoder else "causal"
        tokenizer = AutoTokenizer.from_pretrained(folder)
        super().__init__(model.to_plain(route_LE), backend, tokenizer=tokenizer, **options)
        texts = TextFormat.of(SimpleNamespace(**config.text_settings or {}), config)
        if prefix and texts.prompt_format == "chat":
            raise InputError(f"prefix: {pretrained} was trained on chats; use the harness's chat template")
        self.prefix = texts.source(Example(task, task, "", ("",))) if prefix else ""

    def loglikelihood(self, requests, **kwargs):
        """Scores the continuations of contexts, as HFLM does."""
        return super().loglikelihood(self._prefixed(requests), **kwargs)

    def generate_until(self, requests, **kwargs):
        """Continues contexts, as HFLM does."""
        return super().generate_until(self._prefixed(requests), **kwargs)

    def _prefixed(self, requests: list) -> list:
        prefixed = ((request, (self.prefix + request.args[0], *request.args[1:])) for request in requests)
        return [dataclasses.replace(request, arguments=arguments) for request, arguments in prefixed]
