"""`import-gguf` of a base, and `export --as gguf` of routes and experts for llama.cpp, against llama.cpp."""

import json

import pytest
import torch
from served import by_llama_cpp
from tiny_backbones import DECODER_ONLY, decoder_only_tokenizer, make_differ
from tiny_runs import ROWS, typed
from transformers import AutoModelForCausalLM, AutoTokenizer

from routing_moe import RoutedModel
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.cli.export import main as export
from routing_moe.cli.import_gguf import load_gguf
from routing_moe.cli.import_gguf import main as import_gguf

gguf = pytest.importorskip("gguf", reason="needs the package gguf")
NAMES = {  # of weights in transformers and in GGUF, in the order of replacement
    "model.embed_tokens": "token_embd",
    "model.layers": "blk",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.": "attn_",
    "mlp.": "ffn_",
    "_proj": "",
    "lm_head": "output",
}


def name_in_gguf(name: str) -> str:
    for own, other in NAMES.items():
        name = name.replace(own, other)
    return name


def rows_in_gguf(weight, heads: int):
    """Returns the rows of a query or key matrix in llama.cpp's order: the halves of a head are mixed."""
    return weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


@torch.no_grad()
def write_gguf(path, family="llama", kind=None, without="no weight", more: str | None = None, bits=4):
    """Writes a tiny model in 4 or 32 bits; returns the equal one in float32, and its tokenizer."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(DECODER_ONLY[family]()).eval()
    tokenizer = decoder_only_tokenizer([line for lines in ROWS.values() for line in lines], has_start=False)
    config, writer = model.config, gguf.GGUFWriter(path, kind or family)
    heads = dict(q_proj=config.num_attention_heads, k_proj=config.num_key_value_heads)
    for name, value in (
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.intermediate_size),
        ("head_count", heads["q_proj"]),
        ("head_count_kv", heads["k_proj"]),
        ("layer_norm_rms_eps", config.rms_norm_eps),
        ("rope_dimension_count", 8),
        ("tokenizer_model", "gpt2"),
        ("tokenizer_pre", "smollm"),
        ("eos_token_id", 1),
        ("chat_template", tokenizer.chat_template),
        ("token_list", sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)),
        ("token_types", [3 if i in tokenizer.all_special_ids else 1 for i in range(len(tokenizer))]),
        (
            "token_merges",
            list(map(" ".join, json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"])),
        ),
    ):
        getattr(writer, f"add_{name}")(value)
    for name, weight in model.named_parameters():
        values, how = weight.numpy(), None
        if weight.ndim == 2 and bits == 4:
            how = gguf.GGMLQuantizationType.Q4_1
            values = gguf.quants.quantize(values, how)
            weight.copy_(torch.from_numpy(gguf.quants.dequantize(values, how)))
        for part in heads.keys() & set(name.split(".")) if (kind or family) == "llama" else ():
            values = rows_in_gguf(values, heads[part])
        if without not in name:
            writer.add_tensor(name_in_gguf(name), values, raw_dtype=how)
    if more:
        writer.add_tensor(more, torch.ones(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, tokenizer


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_file_becomes_the_dequantized_model_with_its_tokenizer_and_template(family, tmp_path, capsys):
    model, tokenizer = write_gguf(tmp_path / "tiny.gguf", family)
    words = [str(tmp_path / "tiny.gguf"), "--output_dir", str(tmp_path / "plain")]
    assert import_gguf(words) == 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ids = torch.arange(3, 90)[None]
    torch.testing.assert_close(plain(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert "quantization_config" not in (tmp_path / "plain/config.json").read_text()
    own = AutoTokenizer.from_pretrained(tmp_path / "plain")
    message = [{"role": "user", "content": "the sky <|user|> 2 12"}]
    assert own.apply_chat_template(message) == tokenizer.apply_chat_template(message)
    assert own.eos_token == "</s>"
    assert own.backend_tokenizer.pre_tokenizer.pre_tokenize_str("12")[0][0] == "1"
    capsys.readouterr()
    assert import_gguf(words) == 2
    assert f"--output_dir {tmp_path / 'plain'} exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (None, "is no GGUF file"),
        (dict(kind="gpt2"), "(its type is gpt2, must be one of bart, "),
        (dict(kind="unheard"), "or of no known model ("),
        (dict(without="1.mlp.up_proj"), "its files lack 1 weights, such as model.layers.1.mlp.up_proj"),
        (dict(more="rope_freqs.weight"), "does not read scaled positions"),
        ("cut", "is incomplete"),
    ],
)
def test_what_cannot_be_imported_is_one_error(how, message, tmp_path, capsys):
    file = tmp_path / "a.gguf"
    if how is None:
        file.write_text("GGML")
    else:
        write_gguf(file, **({} if how == "cut" else how))
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-2000])
    assert import_gguf([str(file), "--output_dir", str(tmp_path / "plain")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {file}")
    assert message in errors[0]
    assert not (tmp_path / "plain").exists()


# ---- routes and experts as files of llama.cpp

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
