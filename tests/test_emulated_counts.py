"""Kernel launches and synchronisations of a step, counted on the emulated device, stay within bounds."""

import numpy as np
import pytest
from emulated_device import NEEDS_DEVICE, Counts, counting, on_device
from tiny_steps import encoded

pytestmark = NEEDS_DEVICE

# Bounds for a BART of 2+2 layers, three experts, two tasks: of launches about 4% above those with torch 2.13.
# Launches: of a step in one micro-batch; of another micro-batch, with one per parameter to add its gradient.
# Synchronisations of host and device: of a micro-batch; of the rest of a step.
BOUNDS = {
    "plain": dict(step=310, another=380, syncs=0, step_syncs=2),
    "softmax": dict(step=940, another=1090, syncs=0, step_syncs=2),
    "straight-through": dict(step=1440, another=1540, syncs=0, step_syncs=2),
    "merged": dict(step=1310, another=1450, syncs=0, step_syncs=2),
    "low-rank, soft": dict(step=975, another=1020, syncs=0, step_syncs=2),
    "low-rank, straight-through": dict(step=1005, another=1020, syncs=0, step_syncs=2),
    "low-rank, given": dict(step=745, another=880, syncs=0, step_syncs=2),
}
LORA = dict(expert_kind="lora", lora_rank=2)
FIELDS = {
    "plain": dict(num_experts=1),
    "softmax": dict(router_mode="softmax"),
    "straight-through": dict(router_mode="gumbel_softmax_st"),
    "merged": dict(router_mode="softmax", expert_mixing="parameters"),
    "low-rank, soft": LORA | dict(router_mode="softmax"),
    "low-rank, straight-through": LORA | dict(router_mode="gumbel_softmax_st"),
    "low-rank, given": LORA | dict(route_source="fixed"),
}
LENGTHS = (8, 4)  # of the longest input and answer, in tokens
STEP_SIZE = 32  # so many that each micro-batch uses all experts


@pytest.fixture
def similar_examples():
    """Examples of two tasks and nearly equal length, of which a limit of tokens makes equal micro-batches."""
    draw = np.random.default_rng(3)
    rows = range(2 * STEP_SIZE)

    def texts(longest):
        return [[0, *draw.integers(4, 60, longest - 2 - i % 2), 2] for i in rows]

    return encoded(*map(texts, LENGTHS), [i // 3 % 2 for i in rows])


def counted_step(make_stepper, examples, fields: dict, n_micro_batches: int) -> Counts:
    """Returns the launches and synchronisations of a step in so many micro-batches."""
    limit = STEP_SIZE * sum(LENGTHS) // n_micro_batches
    settings = dict(train_batch_size=STEP_SIZE, max_tokens_per_micro_batch=limit)
    stepper = make_stepper(settings, examples=examples, **fields)
    stepper.step(0)  # creates the optimizer's state
    assert len(stepper.split(1)[2]) == n_micro_batches
    with counting() as counts:
        stepper.step(1)
    return counts


@pytest.mark.parametrize("kind", BOUNDS)
def test_launches_and_synchronisations_are_bounded(make_stepper, similar_examples, kind):
    given = make_stepper, similar_examples, FIELDS[kind]
    one, two = (on_device(counted_step, *given, n_micro_batches) for n_micro_batches in (1, 2))
    syncs = two.syncs.total() - one.syncs.total()
    found = dict(
        step=one.launches.total(),
        another=two.launches.total() - one.launches.total(),
        syncs=syncs,
        step_syncs=one.syncs.total() - syncs,
    )
    above = {name: n for name, n in found.items() if n > BOUNDS[kind][name]}
    assert not above, (found, one.launches.most_common(), one.syncs.most_common())
