"""Which examples go through the model together: of similar length, and of equal routes if that is cheaper.

Batches do not depend on the number of processes, so that results do not either.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from dataloader.batching import assign_to_ranks, micro_batches
from dataloader.encoding import EncodedExamples
from routing_moe.evaluation.pool import Pool, Routes
from routing_moe.evaluation.scored_files import Decoding
from routing_moe.optim.micro_batches import default_overhead

ENOUGH_ON_CPU = 8  # see `enough_for_plain`
LONG_EXAMPLE = 512 + 64  # input and output tokens of the examples that --predict_batch_size counts
SHORT_PER_LONG = 8  # the largest number of short examples that a batch has instead of a long one
MOST_IN_LOSS = 16384  # padded tokens of a batch whose losses are computed


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that go through the model together.

    draw: which of the `draws_of` routes. ranked: whether their options are ranked. route: (L, E) if they are
    all on it and its plain BART answers them, else None. cost: about the number of tokens processed.
    """

    draw: int
    ranked: bool
    route: Tensor | None
    indices: np.ndarray
    cost: int


def answering_batches(model, pool: Pool, draws: list[Routes], decoding: Decoding, size: int) -> list[Batch]:
    """Returns the batches to answer all examples, for each draw of routes. size: as --predict_batch_size."""
    rank = decoding.scoring == "rank"
    kinds = [(ranked, pool.members(ranked)) for ranked in (False, True)] if rank else [(False, pool.all)]
    lengths_N = pool.encoded.source_lengths_N + decoding.max_output_length
    most = size * SHORT_PER_LONG
    enough = enough_for_plain(model, size * LONG_EXAMPLE / lengths_N.mean())
    return [
        Batch(draw, ranked, route, indices, answering_cost(pool, indices, ranked, decoding.num_beams))
        for draw, routes in enumerate(draws)
        for ranked, members in kinds
        for route, own in by_route(model, routes, members, enough)
        for indices in cut(
            longest_first(pool, own, by_answer=not ranked), lengths_N, size * LONG_EXAMPLE, most
        )
    ]


def loss_batches(
    model, examples: EncodedExamples, draws: list[Routes], size: int | None = None
) -> list[Batch]:
    """Returns the batches to compute the losses of all examples, for each draw of routes; the longest first.

    They are those of a training step of all examples: with the least padding on a CPU, few on a GPU. A plain
    BART runs them if all have its route, or parameters are merged, which is done once for each route.
    size: as --predict_batch_size; None: as many as MOST_IN_LOSS allows.
    """
    sources_N, targets_N = examples.source_lengths_N, examples.target_lengths_N
    overhead = default_overhead(model.device)
    most_tokens = min(size * LONG_EXAMPLE, MOST_IN_LOSS) if size else MOST_IN_LOSS
    return [
        Batch(draw, False, route, own[group], int((sources_N + targets_N)[own[group]].sum()))
        for draw, routes in enumerate(draws)
        for route, own in by_route(model, routes, np.arange(len(examples)), math.inf)
        for group in reversed(
            micro_batches(sources_N[own], targets_N[own], most_tokens, overhead_tokens=overhead)
        )
    ]


def enough_for_plain(model, together: float) -> float:
    """Returns the number of examples of a one-hot route from which its plain BART decodes them.

    Fewer are decoded together with those of other routes, at the cost of all experts, because a step of a few
    examples takes almost as long as one of many: on a CPU up to about ENOUGH_ON_CPU examples. On a GPU it is
    the rule of `generate`: more than 2 E routes in a batch are decoded together.

    together: the number of examples of a batch.
    """
    on_cpu = model.device.type == "cpu"
    return ENOUGH_ON_CPU if on_cpu else together / (2 * model.config.num_experts)


def by_route(
    model, routes: Routes, members: np.ndarray, enough: float
) -> list[tuple[Tensor | None, np.ndarray]]:
    """Returns pairs of a route (L, E) and the members that its plain BART answers.

    The last pair may have the route None: members that the routing model answers along their own routes,
    because these have no equivalent plain BART, or fewer than `enough` members are on each of them.
    """
    read_KLE = routes.rows_KLE[:, model.config.routed_rows]
    same_K = read_KLE.flatten(1).unique(dim=0, return_inverse=True)[1].cpu().numpy()
    merges = model.config.expert_mixing == "parameters"
    plain_K = ((read_KLE == 0) | (read_KLE == 1)).flatten(1).all(dim=1).cpu().numpy()
    plain_K |= model.config.has_plain_routes
    same_M = same_K[routes.which_N[members]]
    order = np.argsort(same_M, kind="stable")
    groups = np.split(members[order], np.flatnonzero(np.diff(same_M[order])) + 1) if len(members) else []
    pairs, others = [], []
    for own in groups:
        row = routes.which_N[own[0]]
        if plain_K[row] and (merges or len(groups) == 1 or len(own) >= enough):
            pairs.append((routes.rows_KLE[row], own))
        else:
            others.append(own)
    return pairs + ([(None, np.sort(np.concatenate(others)))] if others else [])


def with_models(
    model, batches: Iterable[Batch], draws: list[Routes]
) -> Iterator[tuple[Batch, nn.Module, Tensor | None]]:
    """Yields each batch with the model that runs it, and its routes (b, L, E): None for a plain BART."""
    last, bart = None, model
    for batch in batches:
        if batch.route is None:
            yield batch, model, draws[batch.draw].of(batch.indices)
        else:
            if batch.route is not last:  # a route's plain BART is assembled once for all its batches
                bart = model.to_bart(batch.route)
            yield batch, bart, None
        last = batch.route


def cut(order: np.ndarray, lengths_N: np.ndarray, max_tokens: int, max_examples: int) -> Iterator[np.ndarray]:
    """Yields the examples of `order` in batches of at most `max_tokens` padded tokens, or of one example.

    lengths_N: tokens of each example, of which a batch has the maximum for all of its examples.
    """
    start, longest = 0, 0
    for end, index in enumerate(order):
        longest = max(longest, int(lengths_N[index]))
        size = end + 1 - start
        if size > 1 and (size * longest > max_tokens or size > max_examples):
            yield order[start:end]
            start, longest = end, int(lengths_N[index])
    if start < len(order):
        yield order[start:]


def longest_first(pool: Pool, members: np.ndarray, by_answer: bool) -> np.ndarray:
    """Returns the members sorted by the number of their input tokens, decreasing.

    by_answer: first by the length of the accepted answer in powers of two, because a batch is decoded until
    its last answer ends. The order has no effect on answers, so that it may depend on the accepted one.
    """
    sources_M = pool.encoded.source_lengths_N[members]
    doublings_M = np.ceil(np.log2(pool.encoded.target_lengths_N[members])) if by_answer else 0 * sources_M
    return members[np.lexsort((-sources_M, -doublings_M))]


# ---- processes


def answering_cost(pool: Pool, indices: np.ndarray, ranked: bool, num_beams: int) -> int:
    """Returns the approximate number of tokens that the model processes to answer the examples.

    Assumes that a generated answer has the length of the first accepted answer, in every beam. An option
    costs its tokens and those of its input.
    """
    sources_N, targets_N = pool.encoded.source_lengths_N, pool.encoded.target_lengths_N
    cost = int(sources_N[indices].sum())
    if not ranked:
        return cost + num_beams * int(targets_N[indices].sum())
    rows = {i: np.unique(pool.option_rows[i]) for i in indices}
    return cost + sum(
        len(own) * int(sources_N[i]) + int(pool.option_tokens.lengths[own].sum()) for i, own in rows.items()
    )


def own_share(batches: list[Batch], accelerator: Accelerator) -> list[int]:
    """Returns ascending indices of this process's batches. All processes get about the same total cost."""
    costs = [batch.cost for batch in batches]
    return assign_to_ranks(costs, accelerator.num_processes)[accelerator.process_index]


# ---- size


def batch_size(model, decoding: Decoding) -> int:
    """Returns the size of batches, as --predict_batch_size: that of `decoding`, else that of the device."""
    return decoding.batch_size or (32 if model.device.type == "cpu" else 128)
