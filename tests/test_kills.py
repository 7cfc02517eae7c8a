"""Commands that are killed at random moments and resumed end with the results of an undisturbed run."""

import random
import shutil
import signal
from pathlib import Path

import pytest
from forks import killed, renames
from tiny_grids import assert_same_grid, finetune
from tiny_runs import assert_same_run, run

pytestmark = [
    pytest.mark.usefixtures("quick_pictures"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals"),
]


class Training:
    """A run of six steps with a checkpoint after every second one, and its predictions."""

    assert_same = staticmethod(assert_same_run)

    def __init__(self, world, request):
        self.world, self.expected = world, request.getfixturevalue("finished")

    def __call__(self, folder: Path) -> int:
        return run(self.world.gym, self.world.bart, folder, do_predict=True, save_period=2, resume=True)


class GridOfRates(Training):
    """A grid of two samples and two learning rates, with the best models."""

    assert_same = staticmethod(assert_same_grid)

    def __init__(self, world, request):
        self.grids, self.expected = request.getfixturevalue("grids"), request.getfixturevalue("finished_grid")

    def __call__(self, folder: Path) -> int:
        return finetune(self.grids.gym, self.grids.bart, folder, save_best=True)


@pytest.mark.parametrize("kind", [Training, GridOfRates], ids=lambda kind: kind.__name__)
def test_a_command_killed_twice_ends_with_the_same_results(kind, world, request):
    command = kind(world, request)
    folder, rng = world / f"killed{kind.__name__}", random.Random(kind.__name__)
    number_of_renames = renames(lambda: command(folder))
    shutil.rmtree(folder)
    for _ in range(2):  # the second time, the first half is there
        number = rng.randint(1, number_of_renames // 2)
        killed(lambda: command(folder), rng.choice(("before", "after")), number=number)
    assert command(folder) == 0
    command.assert_same(folder, command.expected)
