"""Greedy answers of a mixture and their log-probabilities, beside peft and llama.cpp with its adapters.

    python tests/served.py MIXTURE FILE.gguf FOLDER      a mixture of adapters, and the file of their base

Prints a CSV line for each comparison. Routes: one-hot, that of the first task; soft, over all experts; none.
"""

import contextlib
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from routing_moe import Routed
from routing_moe.answering.queries import Query
from routing_moe.cli.export import main as export

NEW_TOKENS, ROUTES = 8, ("one-hot", "soft")
TEXTS = (
    "a gorgeous , witty , seductive movie . / nothing but boilerplate cliches from start to finish . / "
    "Where is the Loop ? / What is the capital of Yugoslavia ? / How many people live in Chile ? / i feel "
    "alone in this city / i was so happy that i cried all evening / an utterly compelling piece of work . "
    "/ it's just a silly black genre spoof . / What does the abbreviation SOS mean ? / What color is "
    "indigo ? / i am furious about the way they treated her / i feel a little nervous before the exam / "
    "When did Hawaii become a state ? / a verbal duel between two gifted performers . / one long string "
    "of cliches . / i love the quiet mornings by the sea / it is a shame that nobody laughed . / Who was "
    "the first in space ? / a thoughtful and moving picture of a family ."
)


@torch.no_grad()
def answered(model, prompts: list[list[int]], end: int, **routes) -> list[tuple[list[int], list[float]]]:
    """Returns the tokens of each greedy answer and their log-probabilities."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        how = dict(do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=end, pad_token_id=end)
        tokens = model.generate(ids, attention_mask=torch.ones_like(ids), **how, **routes)[0]
        tokens = tokens if routes else tokens[len(prompt) :]  # transformers returns the prompt, too
        logits = model(torch.cat([ids, tokens[None]], dim=1), **routes).logits[0, len(prompt) - 1 : -1]
        of_tokens = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        found.append((tokens.tolist(), of_tokens.tolist()))
    return found


def norms_in_their_type(model):
    """Makes norms of a Llama compute in the type of their input; in float64, too, theirs round to float32.

    Two equal models then differ by 1e-7 wherever a sum in another order is rounded to another number.
    """
    for norm in (module for module in model.modules() if type(module) is LlamaRMSNorm):
        how = dict(normalized_shape=norm.weight.shape, weight=norm.weight, eps=norm.variance_epsilon)
        norm.forward = partial(F.rms_norm, **how)
    return model


def by_llama_cpp(base, adapters, requests, prompts: list[list[int]], **asked) -> list[list]:
    """Returns the generated tokens for each request and prompt. A request has scales of all adapters."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = str(base), 512, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(file), 0.0) for file in adapters]
    server, found, how = xllamacpp.Server(params), [], dict(temperature=0, cache_prompt=False) | asked
    for scales in requests:
        lora = [{"id": i, "scale": scale} for i, scale in enumerate(scales)]
        replies = [server.handle_completions(dict(prompt=prompt, lora=lora) | how) for prompt in prompts]
        found.append([reply["choices"][0]["logprobs"]["content"] for reply in replies])
    return found


def answers_of(base, adapters, requests, prompts: list[list[int]]) -> list[list]:
    """Returns `answered` of llama.cpp for each request."""
    found = by_llama_cpp(base, adapters, requests, prompts, max_tokens=NEW_TOKENS, n_probs=1)
    names = ("id", "logprob")
    return [[tuple([t[n] for t in each] for n in names) for each in of_request] for of_request in found]


def compared(ours, theirs, end: int) -> tuple[int, float]:
    """Returns how many answers are equal, and the largest difference of log-probabilities of their tokens.

    An answer that differs counts up to its first other token.
    """
    equal, largest = 0, 0.0
    for (tokens, values), (others, other_values) in zip(ours, theirs, strict=True):
        text, other = ([token for token in row if token != end] for row in (tokens, others))
        equal += text == other
        for token, value, again, its_value in zip(tokens, values, others, other_values, strict=False):
            if token != again:
                break
            largest = max(largest, abs(value - its_value))
    return equal, largest


def write_float32(packaged: Path, file: Path) -> None:
    """Writes a GGUF file with its weights dequantized."""
    import gguf

    reader = gguf.GGUFReader(packaged)
    writer = gguf.GGUFWriter(file, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            of_items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=of_items)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def exported(mixture: Path, folder: Path, *words: str) -> Path:
    flags = ["--checkpoint", str(mixture), "--output_dir", str(folder), "--as", "gguf", *words]
    with contextlib.redirect_stdout(sys.stderr):
        assert folder.exists() or export(flags) == 0
    return folder


def comparisons(mixture: Path, packaged: Path | None, folder: Path, n: int = 20):
    """Yields the values of a line, of n texts. packaged: None: peft alone."""
    from peft import PeftModel

    routed, texts = Routed.load(mixture), TEXTS.split(" / ")[:n]
    model, end, tasks = routed.model, routed.tokenizer.eos_token_id, routed.model.config.task_names
    E, L = model.config.num_experts, model.config.num_layers
    soft = [2 * (e + 1) / (E * (E + 1)) for e in range(E)]
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"one-hot": [1.0] + [0.0] * (E - 1), "soft": soft, "none": [0.0] * E}
    given = {route: [weights[route]] * L for route in ROUTES}
    (folder / "routes.json").write_text(json.dumps(given))
    encoded = routed.task_file(tasks[0], list(map(Query, texts))).encoded
    prompts = [encoded.sources[i].tolist() for i in range(n)]
    ours = {}
    for dtype in (torch.float64, torch.float32):
        norms_in_their_type(model.to(dtype))
        for route in ROUTES:
            route_LE = torch.tensor(weights[route], dtype=dtype).expand(L, E)
            ours[route] = answered(model, prompts, end, routes=route_LE[None])
            model.to_adapter(route_LE, place := folder / f"peft {route} {dtype}", "base")
            base = AutoModelForCausalLM.from_pretrained(model.config.base_model, dtype=dtype)
            adapted = PeftModel.from_pretrained(base, place, autocast_adapter_dtype=False).to(dtype).eval()
            theirs = answered(norms_in_their_type(adapted), prompts, end)
            engine = f"peft {str(dtype).removeprefix('torch.')}"
            yield engine, "one adapter", route, *compared(ours[route], theirs, end), n
    if packaged is None:
        return
    ours["none"] = answered(model, prompts, end, routes=torch.zeros(1, L, E))
    files = {"float32": folder / "float32.gguf", "Q4_1": packaged}
    write_float32(packaged, files["float32"])
    all_experts = exported(mixture, folder / "experts", "--adapters")
    expert_N = model.routes_for(tasks)[:, 0].argmax(dim=1).tolist()  # tasks have another order than experts
    experts = [all_experts / tasks[expert_N.index(e)] / "adapter.gguf" for e in range(E)]
    routes = ["--task_routes", str(folder / "routes.json")]
    single = [exported(mixture, folder / name, "--task", name, *routes) / "adapter.gguf" for name in ROUTES]
    for name, file in files.items():
        found = answers_of(file, experts, weights.values(), prompts)
        for route, theirs in zip(weights, found, strict=True):
            yield f"llama.cpp {name}", "scales of experts", route, *compared(ours[route], theirs, end), n
        found = answers_of(file, single, [[1.0, 0.0], [0.0, 1.0]], prompts)
        for route, theirs in zip(ROUTES, found, strict=True):
            yield f"llama.cpp {name}", "one adapter", route, *compared(ours[route], theirs, end), n


if __name__ == "__main__":
    print("engine,adapters,route,equal,largest,n")
    for line in comparisons(*map(Path, sys.argv[1:4])):
        print(*line, sep=",", flush=True)
