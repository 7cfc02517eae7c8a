"""`export --as gguf`: routes and experts as files of llama.cpp, against transformers and llama.cpp itself."""

import json

import pytest
import torch
from served import by_llama_cpp
from test_import_gguf import gguf, write_gguf
from tiny_backbones import make_differ
from tiny_runs import typed

from routing_moe import RoutedModel
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.cli.export import main as export
from routing_moe.cli.import_gguf import load_gguf

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
PROMPTS = torch.randint(3, 90, (4, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mixture(family, tmp_path):
    """A mixture of two experts in tmp_path/mixture, and its base in tmp_path/base.gguf."""
    plain, tokenizer = write_gguf(tmp_path / "base.gguf", family, ARCHITECTURES[family], bits=32)
    plain.save_pretrained(tmp_path / "plain")
    sizes = dict(lora_rank=3, lora_alpha=12, lora_targets="all", route_source="fixed", task_names=["a", "b"])
    model = RoutedModel.from_backbone(tmp_path / "plain", 2, **sizes).eval()
    make_differ(model)
    save_checkpoint(model, tokenizer, tmp_path / "mixture")
    (tmp_path / "routes.json").write_text(json.dumps({"soft": [[0.2, 0.8]] * 3}))
    return model


def written(folder, *words) -> None:
    flags = dict(checkpoint=folder / "mixture", output_dir=folder / "out")
    assert export([*typed(flags), "--as", "gguf", *words]) == 0


def log_p(model, weights) -> torch.Tensor:
    """The log-probabilities (prompts, V) of the next token."""
    route_LE = torch.tensor(weights).expand(3, 2)
    with torch.no_grad():
        return model(PROMPTS, routes=route_LE.expand(4, 3, 2)).logits[:, -1].log_softmax(-1)


# Transformers reads no width of heads from a file of Qwen3.
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_a_base_with_the_update_added_in_its_own_file_is_read_as_the_route(mixture, family, tmp_path):
    """Transformers undoes the permutation of the base, and so that of the update."""
    written(tmp_path, *typed(dict(task="soft", task_routes=tmp_path / "routes.json")))
    reader = gguf.GGUFReader(tmp_path / "out/adapter.gguf", "r")
    adapter = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    scale = reader.fields["adapter.lora.alpha"].contents() / 6
    base = gguf.GGUFReader(tmp_path / "base.gguf", "r+")
    for tensor in base.tensors:
        if tensor.name + ".lora_a" in adapter:
            A, B = (adapter.pop(f"{tensor.name}.lora_{side}") for side in "ab")
            tensor.data[:] += (scale * (B @ A)).numpy()
    assert not adapter
    base.data.flush()
    plain, _ = load_gguf(tmp_path / "base.gguf")
    with torch.no_grad():
        found = plain(PROMPTS).logits[:, -1].log_softmax(-1)
    torch.testing.assert_close(found, log_p(mixture, [0.2, 0.8]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_llama_cpp_gives_the_probabilities_of_every_route(mixture, family, tmp_path):
    """One server with all experts, each loaded once: scales of a request are the weights of a route."""
    written(tmp_path, "--adapters")
    adapters = [tmp_path / f"out/expert{expert}/adapter.gguf" for expert in range(2)]
    routes = [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.2, 0.8]
    asked = dict(max_tokens=1, n_probs=99)
    tokens = by_llama_cpp(tmp_path / "base.gguf", adapters, routes, PROMPTS.tolist(), **asked)
    for weights, of_route in zip(routes, tokens, strict=True):
        found = torch.full((len(PROMPTS), 99), torch.nan)
        for row, (token,) in zip(found, of_route, strict=True):
            for option in token["top_logprobs"]:
                row[option["id"]] = option["logprob"]
        torch.testing.assert_close(found, log_p(mixture, weights), rtol=0, atol=0.01)
    assert (log_p(mixture, [1.0, 0.0]) - log_p(mixture, [0.0, 0.0])).abs().max() > 0.3
