"""Every command puts its tensors on the device, here an emulated one."""

from functools import partial
from pathlib import Path

import pytest
import tiny_vectors
import torch
from accelerate.state import AcceleratorState
from emulated_device import DEVICE, NEEDS_DEVICE, WrongDevice, on_device, used
from tiny_answers import TEXTS
from tiny_grids import QUICK, finetune, write_few_shot_gym
from tiny_runs import run, typed, write_ranked_gym

from routing_moe.cli import ablate, answer, export

pytestmark = [NEEDS_DEVICE, pytest.mark.usefixtures("quick_pictures")]


def test_mixed_devices_are_refused_where_cuda_refuses_them():
    on_device(lambda: (torch.arange(3, device=DEVICE) + torch.tensor(2))[torch.tensor([0, 2])].cpu())
    with pytest.raises(WrongDevice, match=f"{DEVICE} and cpu"):
        on_device(lambda: torch.arange(3, device=DEVICE) + torch.ones(3))


@pytest.fixture(scope="module")
def mixture(world) -> Path:
    """A run of one step with soft routes of three experts."""
    changed = dict(num_experts=3, init_eps=0.3, router_mode="softmax", total_steps=1)
    return world.run("soft_mixture", **changed)


def train(world, mixture, folder, **changed) -> int:
    return run(changed.pop("gym", world.gym), world.bart, folder / "run", **dict(total_steps=1) | changed)


def drawn(*place) -> int:
    return train(*place, task_level_random_routing=True, expert_mixing="parameters")


def predicted(world, mixture, folder) -> int:
    """Ranks the options of the tasks that have some, and generates answers of the others."""
    gym = write_ranked_gym(folder / "gym")
    return train(world, mixture, folder, gym=gym, do_predict=True, predict_split="test", scoring="rank")


def fine_tune(world, mixture, folder) -> int:
    flags = QUICK | dict(task_routes="lowest_loss", learning_rate_list=[0.03], total_steps=1)
    gym = write_few_shot_gym(folder / "few_shot", world.gym)
    return finetune(gym, world.bart, folder / "grid", moe_init=True, init_dir=mixture, **flags)


def vectors(method: str):
    run = partial(tiny_vectors.run, method, tasks=["colour"])
    return lambda world, mixture, folder: run(world.gym, world.bart, folder / "vectors")


def ablated(world, mixture, folder) -> int:
    flags = ["--experts", "enc0.1", "dec0.2", "--max_examples", "1", "--output_dir", f"{folder}/out"]
    return ablate.main([str(mixture), *flags])


def answered(world, mixture, folder) -> int:
    (folder / "new.txt").write_text("\n".join(TEXTS))
    files = dict(inputs=folder / "new.txt", output_file=folder / "answers.jsonl")
    return answer.main(typed(dict(checkpoint=mixture, task="colour") | files))


def exported(world, mixture, folder) -> int:
    train(world, mixture, folder, expert_kind="lora", base_lr=0.01, load_balance=0.1)
    return export.main(typed(dict(checkpoint=folder / "run", adapters=True, output_dir=folder / "out")))


COMMANDS = {
    "train and predict": predicted,
    "train along drawn routes with merged experts": drawn,
    "train and export low-rank experts": exported,
    "fine-tune by lowest loss": fine_tune,
    "fisher vectors": vectors("fisher"),
    "gradient vectors": vectors("gradient"),
    "text vectors": vectors("text"),
    "ablate": ablated,
    "answer": answered,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_computes_on_the_device(name, world, mixture, tmp_path):
    def command() -> int:
        AcceleratorState._reset_state(reset_partial_state=True)
        assert COMMANDS[name](world, mixture, tmp_path) == 0
        return len(used)

    assert on_device(command) > 20
