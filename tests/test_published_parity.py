"""The published code's numbers on a tiny model, reproduced: routers, routes, losses, gradients, decoding.

The numbers are in `data/published`. The six optimizer steps are followed by test_stepping.py, token ids by
test_dataloader_encoding.py, scores by test_dataloader_metrics.py.
"""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration, select_routes
from routing_moe.config.shared import StepSettings
from routing_moe.model.conversion import load_plain_weights
from routing_moe.model.published import published_fields, upstream_name
from routing_moe.model.routers import ROUTERS


def to_BLE(encoder_LBE, decoder_LBE):
    """Published order (layer, batch, expert) of both sides to ours (batch, layer, expert)."""
    return torch.cat([encoder_LBE, decoder_LBE]).transpose(0, 1).contiguous()


def close(actual, expected, relative=1e-4, absolute=1e-6):
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=relative, atol=absolute)


def gradient_sketch(gradient, n_projections=4, n_entries=32):
    """(38,) float64: largest absolute entry, norm, 4 sums with random signs, 32 evenly spaced entries.

    One wrong entry changes every sum, a permutation changes sums and entries: nearly as strict as comparing
    all entries, which would take 2.2 MB.
    """
    flat = gradient.detach().double().flatten()
    signs = np.random.RandomState(0).choice([-1.0, 1.0], (n_projections, len(flat)))
    entries = flat[np.linspace(0, len(flat) - 1, n_entries).astype(int)]
    return torch.cat([flat.abs().max()[None], flat.norm()[None], torch.from_numpy(signs) @ flat, entries])


@pytest.fixture(scope="module")
def loaded(published_run):
    return RoutingBartForConditionalGeneration.from_upstream(published_run)


@pytest.fixture
def model(loaded):
    return copy.deepcopy(loaded)


@pytest.fixture(scope="module")
def numbers_of(published_numbers):
    """{topic: {name: tensor}}"""
    return {path.stem: load_file(path) for path in published_numbers.glob("*.safetensors")}


@pytest.fixture(scope="module")
def vectors_ND(published_run):
    return torch.from_numpy(np.load(published_run / "best/task_vecs.npy"))


def published_batch(numbers_of):
    batch = numbers_of["batch"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return inputs | {"labels": batch["decoder_input_ids"]}


def published_routes(model, numbers_of, setting):
    """Routes (B, L, E) of one of the six recorded settings, with their graph to router and vectors."""
    losses = numbers_of["losses"]
    if setting == "avg":
        return torch.full((4, 4, 3), 1 / 3)
    if setting == "onehot":
        return to_BLE(losses["onehot/enc"], losses["onehot/dec"])
    mode, temperature = setting.split("@")
    if f"{setting}/seed" in losses:
        torch.manual_seed(losses[f"{setting}/seed"].item())
    logits_BLE = model.router_logits(numbers_of["batch"]["task_ids"])
    return select_routes(logits_BLE, mode, float(temperature), encoder_layers=2)


def real_logits(model, numbers_of, **routes):
    """Logits at real target positions, the recorded decoder inputs taken as they are."""
    inputs = published_batch(numbers_of)
    labels = inputs.pop("labels")
    return model(**inputs, decoder_input_ids=labels, **routes).logits[labels != 1]


# ---- checkpoints


def test_a_published_run_folder_loads_with_all_weights(model, published_run, vectors_ND):
    state = model.state_dict()
    published = torch.load(published_run / "best/model.pt", weights_only=True)
    assert len(published) == 279
    for name, weight in published.items():
        assert torch.equal(state[upstream_name(name)], weight), name
    assert model.config.task_names == ["task_a", "task_b", "task_c", "task_d", "task_e"]
    assert torch.equal(model.task_vectors.weight, vectors_ND)
    assert len(state) == len(published) + 1


def test_a_published_run_keeps_its_generation_settings_and_lacks_no_field(published_run, tmp_path):
    run = shutil.copytree(published_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"no_repeat_ngram_size": 3}))
    loaded = RoutingBartForConditionalGeneration.from_upstream(run)
    assert loaded.generation_config.no_repeat_ngram_size == 3
    (run / "config.json").write_text("{}")
    with pytest.raises(InputError, match="lacks router_block_num"):
        RoutingBartForConditionalGeneration.from_upstream(run)


# ---- routers and routes


PUBLISHED_ROUTERS = sorted(
    {name.split("/")[0] for name in load_file(Path(__file__).parent / "data/published/routers.safetensors")}
)


@pytest.mark.parametrize("router_nn_type", PUBLISHED_ROUTERS)
def test_router_logits_and_input_gradients(router_nn_type, numbers_of, published_run, vectors_ND):
    numbers = {
        name.removeprefix(f"{router_nn_type}/"): number
        for name, number in numbers_of["routers"].items()
        if name.startswith(f"{router_nn_type}/")
    }
    published = json.loads((published_run / "config.json").read_text())
    published["router_nn_type"] = router_nn_type
    router = ROUTERS[router_nn_type](RoutingBartConfig(**published_fields(published, [], 16))).eval()
    weights = {name.removeprefix("param/"): w for name, w in numbers.items() if name.startswith("param/")}
    router.load_state_dict({upstream_name(k).removeprefix("router."): w for k, w in weights.items()})
    given_ND = vectors_ND.clone().requires_grad_()
    logits_NLE = router(given_ND)
    close(logits_NLE, to_BLE(numbers["enc_logits"], numbers["dec_logits"]))
    encoder, decoder = logits_NLE[:, :2].transpose(0, 1), logits_NLE[:, 2:].transpose(0, 1)
    flat = torch.cat([encoder.flatten(), decoder.flatten()])
    (flat * torch.arange(1, len(flat) + 1) / 10).sum().backward()
    close(given_ND.grad, numbers["grad_task_vecs"], absolute=1e-5)


@pytest.mark.parametrize(
    "setting",
    ["softmax@1", "softmax@300", "softmax@0.1"]
    + [f"{mode}@{tau}" for mode in ("gumbel_softmax", "gumbel_softmax_st") for tau in ("1", "0.3")],
)
def test_selected_routes_equal_the_published_ones(setting, numbers_of):
    numbers = numbers_of["selection"]
    mode, temperature = setting.split("@")
    logits = to_BLE(numbers["enc_logits"], numbers["dec_logits"])
    if f"{setting}/seed" in numbers:
        torch.manual_seed(numbers[f"{setting}/seed"].item())
    routes = select_routes(logits, mode, float(temperature), encoder_layers=2)
    close(routes, to_BLE(numbers[f"{setting}/enc"], numbers[f"{setting}/dec"]), absolute=1e-7)


def test_routes_of_named_tasks_and_with_an_expert_ablated(model, numbers_of):
    numbers = numbers_of["selection"]
    tasks = [model.config.task_names[i] for i in numbers["task_ids"]]
    at_07 = model.routes_for(tasks, "softmax", 0.7).transpose(0, 1)
    close(at_07, numbers["get_routes@0.7/cat"])
    close(model.routes_for(tasks, "softmax", 1.0).transpose(0, 1), numbers["get_routes@0.7/t1"])
    logits = model.router_logits(model.task_ids(tasks))
    expected = numbers["get_routes@0.7/override0"]
    mask_LE = expected[:, 0] < 1e-6
    close(select_routes(logits.masked_fill(mask_LE, -1e10), "softmax", 0.7).transpose(0, 1), expected)


def test_temperature_factors_equal_the_published_ones(published_numbers):
    schedules = json.loads((published_numbers / "schedules.json").read_text())
    for key, tau, minimum, rate in (
        ("gumbel_default(2.0,0.1,3e-4)", 2.0, 0.1, 3e-4),
        ("two_stage(300,1,1e-4)", 300, 1, 1e-4),
    ):
        settings = StepSettings(initial_tau=tau, minimum_tau=minimum, anneal_rate=rate)
        for step, expected in schedules[key]:
            assert settings.temperature(step) == pytest.approx(expected, rel=1e-12)


# ---- losses and gradients


def loss_and_gradients(setting, model, numbers_of):
    """The loss, and {published name: gradient, None if no gradient reaches it} of the recorded batch."""
    model.train()  # every dropout of the published model is 0
    loss = model(**published_batch(numbers_of), routes=published_routes(model, numbers_of, setting)).loss
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def gradient_names(published_numbers):
    """{our name: row of its sketch in gradients.safetensors}"""
    published = json.loads((published_numbers / "gradient_names.json").read_text())
    own = ["task_vectors.weight" if n == "task_model.embed.weight" else upstream_name(n) for n in published]
    return {name: row for row, name in enumerate(own)}


@pytest.mark.parametrize("setting", ["softmax@1", "gumbel_softmax_st@0.7", "avg", "onehot"])
def test_losses_and_every_gradient(setting, model, numbers_of, gradient_names):
    """Tolerances: 1e-4 of the largest entry for entries, 1e-4 of the norm for norm and sums.

    The absolute terms are for key biases, whose gradient is zero but for rounding (total norm: above 100).
    """
    loss, gradients = loss_and_gradients(setting, model, numbers_of)
    close(loss, numbers_of["losses"][f"{setting}/loss"])
    recorded = numbers_of["gradients"][setting].double()
    for name, row in gradient_names.items():
        if recorded[row].isnan().all():  # the published code has no gradient there
            assert gradients[name] is None, name
            continue
        p = model.get_parameter(name)
        actual = gradient_sketch(torch.zeros_like(p) if gradients[name] is None else gradients[name])
        largest, norm = recorded[row, :2].tolist()
        for part, tolerance in ((slice(0, 6), 1e-4 * norm + 5e-5), (slice(6, None), 1e-4 * largest + 1e-5)):
            error = (actual[part] - recorded[row, part]).abs().max().item()
            assert error <= tolerance, (name, error)
    assert sum(g is not None for g in gradients.values()) <= (~recorded.isnan().all(-1)).sum()


@pytest.mark.parametrize("setting", ["softmax@300", "gumbel_softmax@0.7"])
def test_losses_and_the_norm_of_every_gradient(setting, model, numbers_of, gradient_names):
    loss, gradients = loss_and_gradients(setting, model, numbers_of)
    close(loss, numbers_of["losses"][f"{setting}/loss"])
    for name, row in gradient_names.items():
        close(gradients[name].norm(), numbers_of["gradients"][setting][row], absolute=1e-5)


@pytest.mark.parametrize("setting", ["avg", "onehot"])
def test_logits_equal_the_published_ones(setting, model, numbers_of):
    routes = published_routes(model, numbers_of, setting)
    expected = numbers_of["losses"][f"{setting}/eval_logits"]
    close(real_logits(model, numbers_of, routes=routes), expected, absolute=2e-5)


def test_expert_regularisation(model, numbers_of):
    close(model.expert_distance(), numbers_of["losses"]["expert_regularization"])


# ---- generation


def generate(model, numbers, kind, **settings):
    """(6, length) token ids of the recorded inputs under the route called `kind`; ends at 20 tokens."""
    route_LE = torch.cat([numbers[f"{kind}_enc"], numbers[f"{kind}_dec"]])
    defaults = dict(max_length=20, early_stopping=False, do_sample=False, decoder_start_token_id=0)
    return model.generate(
        numbers["input_ids"].long(),
        attention_mask=numbers["attention_mask"].long(),
        routes=route_LE.expand(6, -1, -1),
        **(defaults | settings),
    )


@pytest.mark.parametrize("beams", ["greedy", "beam4"])
@pytest.mark.parametrize("kind", ["onehot", "dense"])
def test_generated_token_ids(beams, kind, model, numbers_of):
    numbers = numbers_of["generation"]
    num_beams = 4 if beams == "beam4" else 1
    cached = generate(model, numbers, kind, num_beams=num_beams)
    assert torch.equal(cached, generate(model, numbers, kind, num_beams=num_beams, use_cache=False))
    recorded = [
        name
        for name in ("sparse_positions_fixed", "nocache", "dense_cache")
        if f"{beams}/{kind}/{name}" in numbers
    ]
    assert len(recorded) >= 2
    for name in recorded:
        assert torch.equal(cached, numbers[f"{beams}/{kind}/{name}"].long()), name


@pytest.mark.parametrize(
    ("recorded", "settings"),
    [
        ("onehot/dense_start_eos", {"decoder_start_token_id": 2}),
        ("onehot/dense_cache_norepeat3", {"no_repeat_ngram_size": 3}),
        ("onehot/dense_cache_norepeat3_earlystop", {"no_repeat_ngram_size": 3, "early_stopping": True}),
        ("onehot/dense_cache_forcedbos0", {"forced_bos_token_id": 0}),
        ("dense/dense_cache_forcedbos0", {"forced_bos_token_id": 0}),
    ],
)
def test_generation_settings_that_a_bart_may_bring(recorded, settings, model, numbers_of):
    numbers = numbers_of["generation"]
    generated = generate(model, numbers, recorded.split("/")[0], num_beams=4, **settings)
    assert torch.equal(generated, numbers[f"beam4/{recorded}"].long())


# ---- from and to a plain BART


def test_an_equivalent_plain_bart_and_its_routed_copy_have_the_published_logits(model, numbers_of):
    numbers = numbers_of["conversion"]
    expected = numbers["squeeze/logits"]
    plain = model.to_bart(torch.cat([numbers["squeeze/enc_routes"], numbers["squeeze/dec_routes"]]))
    close(real_logits(plain, numbers_of), expected, absolute=2e-5)
    routed = RoutingBartForConditionalGeneration.from_bart(plain, init_eps=0.0, router_input_dim=16).eval()
    one_hot = published_routes(model, numbers_of, "onehot")
    for routes in (torch.full((4, 4, 3), 1 / 3), one_hot, torch.rand(4, 4, 3).softmax(-1)):
        close(real_logits(routed, numbers_of, routes=routes), expected, absolute=3e-5)
    same_BLE = one_hot[:1].expand(4, -1, -1)
    assert torch.equal(real_logits(routed, numbers_of, routes=same_BLE), real_logits(plain, numbers_of))


def test_initialisation_noise_is_drawn_in_the_published_order(model, numbers_of):
    plain = BartForConditionalGeneration(model.config.to_bart_config())
    torch.manual_seed(60)
    load_plain_weights(model, {k: torch.zeros_like(w) for k, w in plain.state_dict().items()}, init_eps=0.01)
    recorded = {n: noise for n, noise in numbers_of["conversion"].items() if n.startswith("noise/")}
    assert len(recorded) == 4
    for name, noise in recorded.items():
        close(model.get_parameter(upstream_name(name.removeprefix("noise/"))), noise, absolute=1e-7)
