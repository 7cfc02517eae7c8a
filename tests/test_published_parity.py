"""The published code's numbers on a tiny model, reproduced: routers, routes, losses, gradients, decoding."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutingBartForConditionalGeneration, select_routes
from routing_moe.model.conversion import load_plain_weights
from routing_moe.model.published import upstream_config, upstream_name
from routing_moe.model.routers import ROUTERS
from routing_moe.model.selection import temperature_at


def tensor(array):
    return torch.from_numpy(np.asarray(array))


def to_BLE(encoder_LBE, decoder_LBE):
    """Published order (layer, batch, expert) of both sides to ours (batch, layer, expert)."""
    return torch.cat([tensor(encoder_LBE), tensor(decoder_LBE)]).transpose(0, 1).contiguous()


def close(actual, expected, relative=1e-4, absolute=1e-6):
    torch.testing.assert_close(actual, tensor(expected).to(actual.dtype), rtol=relative, atol=absolute)


@pytest.fixture
def model(reference):
    return RoutingBartForConditionalGeneration.from_upstream(reference / "checkpoint")


@pytest.fixture(scope="module")
def npz(reference):
    return {path.stem: np.load(path) for path in reference.glob("*.npz")}


def published_batch(npz):
    batch = npz["batch"]
    labels = tensor(batch["decoder_input_ids"])
    return dict(
        input_ids=tensor(batch["input_ids"]), attention_mask=tensor(batch["attention_mask"]), labels=labels
    )


def published_routes(model, npz, setting):
    """Routes (B, L, E) of one of the six recorded settings, with their graph to router and vectors."""
    task_ids = tensor(npz["batch"]["task_ids"])
    train = npz["train"]
    if setting == "avg":
        return torch.full((4, 4, 3), 1 / 3)
    if setting == "onehot":
        return to_BLE(train["onehot/enc"], train["onehot/dec"])
    mode, temperature = setting.split("@")
    if f"{setting}/seed" in train:
        torch.manual_seed(int(train[f"{setting}/seed"]))
    return select_routes(model.router_logits(task_ids), mode, float(temperature), encoder_layers=2)


def test_a_published_run_folder_loads_with_every_weight_in_its_place(model, npz, reference):
    state = model.state_dict()
    published = npz["state_dict"]
    for name in published.files:
        assert torch.equal(state[upstream_name(name)], tensor(published[name])), name
    assert model.config.task_names == ["task_a", "task_b", "task_c", "task_d", "task_e"]
    close(model.task_vectors.weight, np.load(reference / "checkpoint/best/task_vecs.npy"), 0, 0)


@pytest.mark.parametrize("router_nn_type", list(ROUTERS))
def test_router_logits_and_input_gradients(router_nn_type, npz, reference):
    numbers, prefix = npz["routers"], f"{router_nn_type}/"
    published = json.loads((reference / "checkpoint/config.json").read_text())
    published["router_nn_type"] = router_nn_type
    router = ROUTERS[router_nn_type](upstream_config(published, [], 16)).eval()
    weights = {k: numbers[k] for k in numbers.files if k.startswith(f"{prefix}param/")}
    renamed = {upstream_name(k.removeprefix(f"{prefix}param/")): tensor(v) for k, v in weights.items()}
    router.load_state_dict({k.removeprefix("router."): v for k, v in renamed.items()})
    vectors = tensor(np.load(reference / "checkpoint/best/task_vecs.npy")).requires_grad_()
    logits_NLE = router(vectors)
    close(logits_NLE, to_BLE(numbers[f"{prefix}enc_logits"], numbers[f"{prefix}dec_logits"]))
    encoder, decoder = logits_NLE[:, :2].transpose(0, 1), logits_NLE[:, 2:].transpose(0, 1)
    flat = torch.cat([encoder.flatten(), decoder.flatten()])
    (flat * torch.arange(1, len(flat) + 1) / 10).sum().backward()
    close(vectors.grad, numbers[f"{prefix}grad_task_vecs"], absolute=1e-5)


@pytest.mark.parametrize(
    "setting",
    ["softmax@1", "softmax@300", "softmax@0.1"]
    + [f"{mode}@{tau}" for mode in ("gumbel_softmax", "gumbel_softmax_st") for tau in ("1", "0.3")],
)
def test_selection(setting, npz):
    numbers = npz["selection"]
    mode, temperature = setting.split("@")
    logits = to_BLE(numbers["enc_logits"], numbers["dec_logits"])
    if f"{setting}/seed" in numbers:
        torch.manual_seed(int(numbers[f"{setting}/seed"]))
    routes = select_routes(logits, mode, float(temperature), encoder_layers=2)
    close(routes, to_BLE(numbers[f"{setting}/enc"], numbers[f"{setting}/dec"]), absolute=1e-7)


def test_routes_of_named_tasks_and_with_an_expert_switched_off(model, npz):
    numbers = npz["selection"]
    tasks = [model.config.task_names[i] for i in numbers["task_ids"]]
    at_07 = model.routes_for(tasks, "softmax", 0.7).transpose(0, 1)
    close(at_07, numbers["get_routes@0.7/cat"])
    close(model.routes_for(tasks, "softmax", 1.0).transpose(0, 1), numbers["get_routes@0.7/t1"])
    logits = model.router_logits(model.task_ids(tasks))
    expected = numbers["get_routes@0.7/override0"]
    mask_LE = tensor(expected[:, 0] < 1e-6)
    close(select_routes(logits.masked_fill(mask_LE, -1e10), "softmax", 0.7).transpose(0, 1), expected)


@pytest.mark.parametrize(
    "setting",
    ["softmax@1", "softmax@300", "gumbel_softmax@0.7", "gumbel_softmax_st@0.7", "avg", "onehot"],
)
def test_losses_and_gradients(setting, model, npz):
    model.train()  # every dropout of the reference model is 0
    routes = published_routes(model, npz, setting)
    loss = model(**published_batch(npz), routes=routes).loss
    close(loss, npz["train"][f"{setting}/loss"])
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    recorded = npz.get(f"grads_{setting}")
    if recorded is None:
        names, norms = (npz["train"][f"{setting}/gnorm_{part}"] for part in ("names", "values"))
        checked = [n for n in names if n != "task_model.embed.weight" and not n.startswith("task")]
        expected = dict(zip(names, norms, strict=True))
        for name in checked:
            close(gradients[upstream_name(str(name))].norm(), expected[name], absolute=1e-5)
        return
    assert len(recorded.files) > 200
    for name in recorded.files:
        ours = "task_vectors.weight" if name.startswith("task") else upstream_name(name)
        expected = tensor(recorded[name])
        actual = torch.zeros_like(expected) if gradients[ours] is None else gradients[ours]
        # Relative to the tensor's own scale, since small entries carry the rounding of large sums. The 1e-5
        # is for key biases, whose gradient is zero but for rounding (total gradient norm: above 100).
        scale = expected.abs().max().item()
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * scale + 1e-5)


@pytest.mark.parametrize("setting", ["avg", "onehot"])
def test_logits(setting, model, npz):
    expected = npz["train"][f"{setting}/eval_logits"][published_batch(npz)["labels"].numpy() != 1]
    close(real_logits(model, npz, routes=published_routes(model, npz, setting)), expected, absolute=2e-5)


def test_label_smoothing(model, npz):
    numbers = npz["train"]
    log_probabilities, targets = tensor(numbers["ls/lprobs"]), tensor(numbers["ls/target"])
    real = targets != model.config.pad_token_id
    close(model._smoothed_loss(log_probabilities[real], targets[real]), numbers["ls/loss"])


def test_expert_regularisation(model, npz):
    close(model.expert_distance(), npz["train"]["expert_regularization"])


@pytest.mark.parametrize("beams", ["greedy", "beam4"])
@pytest.mark.parametrize("kind", ["onehot", "dense"])
def test_generated_token_ids(beams, kind, model, npz):
    numbers = npz["generation"]
    ids, mask = tensor(numbers["input_ids"]), tensor(numbers["attention_mask"])
    route = torch.cat([tensor(numbers[f"{kind}_enc"]), tensor(numbers[f"{kind}_dec"])])
    routes = route.expand(len(ids), -1, -1)
    settings = dict(
        num_beams=4 if beams == "beam4" else 1, max_length=20, early_stopping=False, do_sample=False
    )
    settings["decoder_start_token_id"] = 0  # the published code starts from <s>

    def generate(**changed):
        return model.generate(ids, attention_mask=mask, routes=routes, **(settings | changed))

    recorded = [
        n for n in ("sparse_positions_fixed", "nocache", "dense_cache") if f"{beams}/{kind}/{n}" in numbers
    ]
    assert recorded
    for name in recorded:
        expected = tensor(numbers[f"{beams}/{kind}/{name}"])
        assert torch.equal(generate(), expected), name
        assert torch.equal(generate(use_cache=False), expected), name


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
def test_generation_settings_that_a_bart_may_bring(recorded, settings, model, npz):
    numbers = npz["generation"]
    kind = recorded.split("/")[0]
    route = torch.cat([tensor(numbers[f"{kind}_enc"]), tensor(numbers[f"{kind}_dec"])])
    generated = model.generate(
        tensor(numbers["input_ids"]),
        attention_mask=tensor(numbers["attention_mask"]),
        routes=route.expand(6, -1, -1),
        **(dict(num_beams=4, max_length=20, early_stopping=False, decoder_start_token_id=0) | settings),
    )
    assert torch.equal(generated, tensor(numbers[f"beam4/{recorded}"]))


def plain_bart(model, npz):
    numbers = npz["init_squeeze"]
    bart = BartForConditionalGeneration(model.config.to_bart_config())
    weights = {
        k.removeprefix("vanilla/"): tensor(numbers[k]) for k in numbers.files if k.startswith("vanilla/")
    }
    bart.load_state_dict(weights, strict=False)
    bart.tie_weights()
    return bart.eval()


def real_logits(model, npz, **routes):
    """Logits at real target positions, the recorded decoder inputs taken as they are."""
    inputs = published_batch(npz)
    labels = inputs.pop("labels")
    return model(**inputs, decoder_input_ids=labels, **routes).logits[labels != 1]


def test_a_routed_copy_computes_what_plain_bart_does(model, npz):
    numbers, bart = npz["init_squeeze"], plain_bart(model, npz)
    real = published_batch(npz)["labels"] != 1
    close(real_logits(bart, npz), numbers["logits/vanilla"][real], absolute=1e-5)
    routed = RoutingBartForConditionalGeneration.from_bart(bart, init_eps=0.0, router_input_dim=16).eval()
    one_hot = published_routes(model, npz, "onehot")
    for name, routes in (
        ("routed_avg", torch.full((4, 4, 3), 1 / 3)),
        ("routed_onehot", one_hot),
        ("routed_softmax", torch.rand(4, 4, 3).softmax(-1)),
    ):
        close(real_logits(routed, npz, routes=routes), numbers[f"logits/{name}"][real], absolute=2e-5)
    assert torch.equal(real_logits(routed, npz, routes=one_hot[:1].expand(4, -1, -1)), real_logits(bart, npz))


def test_initialisation_noise_is_drawn_in_the_published_order(model, npz):
    numbers, bart = npz["init_squeeze"], plain_bart(model, npz)
    torch.manual_seed(60)
    load_plain_weights(model, bart.state_dict(), init_eps=0.01)
    recorded = [name for name in numbers.files if name.startswith("eps0.01_seed60/")]
    assert len(recorded) == 4
    for name in recorded:
        close(model.state_dict()[upstream_name(name.split("/")[1])], numbers[name], absolute=1e-7)


def test_squeezed_model(model, npz):
    numbers = npz["init_squeeze"]
    route = torch.cat([tensor(numbers["squeeze/enc_routes"]), tensor(numbers["squeeze/dec_routes"])])
    real = published_batch(npz)["labels"] != 1
    close(real_logits(model.to_bart(route), npz), numbers["logits/squeezed"][real], absolute=2e-5)


def test_temperature_factors(reference):
    schedules = json.loads((reference / "schedules.json").read_text())
    for key, settings in (
        ("gumbel_default(2.0,0.1,3e-4)", (2.0, 0.1, 3e-4)),
        ("two_stage(300,1,1e-4)", (300, 1, 1e-4)),
    ):
        for step, expected in schedules[key]:
            assert temperature_at(step, *settings) == pytest.approx(expected, rel=1e-12)


def test_a_published_run_brings_its_rules_of_generation_and_broken_ones_are_told(reference, tmp_path):
    run = shutil.copytree(reference / "checkpoint", tmp_path / "run")
    for path in run.rglob("*"):
        path.chmod(0o755)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"no_repeat_ngram_size": 3}))
    loaded = RoutingBartForConditionalGeneration.from_upstream(run)
    assert loaded.generation_config.no_repeat_ngram_size == 3
    (run / "best/model.pt").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"model\.pt: not the weights of a run"):
        RoutingBartForConditionalGeneration.from_upstream(run)
    (run / "config.json").write_text("{}")
    with pytest.raises(InputError, match="lacks router_block_num"):
        RoutingBartForConditionalGeneration.from_upstream(run)
