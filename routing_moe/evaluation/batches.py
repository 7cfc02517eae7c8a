"""Which examples go through the model together: of similar length, and of equal routes if that is cheaper.

Batches do not depend on the number of processes, so that results do not either. N examples of all files, K
rows of routes, L layers, E experts.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import release_memory
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from dataloader.batching import assign_to_ranks, micro_batches, overhead_on
from dataloader.encoded import EncodedExamples
from routing_moe.evaluation.scored_files import Decoding, Pool, TaskFile, prompts_of
from routing_moe.io.main_process import on_main
from routing_moe.model.selection import random_one_hot

ENOUGH_ON_CPU = 8  # see `enough_for_plain`
LONG_EXAMPLE = 512 + 64  # input and output tokens of the examples that --predict_batch_size counts
SHORT_PER_LONG = 8  # the largest number of short examples that a batch has instead of a long one
MOST_IN_LOSS = 16384  # padded tokens of a batch whose losses are computed
SIZES = {"cpu": 32, "cuda": 128}  # of batches, by the kind of device, as --predict_batch_size


@dataclass(frozen=True, eq=False)
class ExampleRoutes:
    """The routes of N examples: that of example i is `rows_KLE[which_N[i]]`."""

    rows_KLE: Tensor
    which_N: np.ndarray

    @classmethod
    def of_files(cls, routes: list[Tensor], sizes: list[int]) -> "ExampleRoutes":
        """Returns routes from those of each file: one of its task (1, L, E), or one of each example."""
        starts = np.cumsum([0, *map(len, routes)])
        which = [
            np.full(size, start) if len(of_file) == 1 else np.arange(start, start + size)
            for of_file, size, start in zip(routes, sizes, starts, strict=False)
        ]
        return cls(torch.cat(routes), np.concatenate(which))

    def routes_of(self, indices: np.ndarray) -> Tensor:
        """Returns the routes (b, L, E) of the examples."""
        return self.rows_KLE[torch.from_numpy(self.which_N[indices])]


def draws_of(model, pool: Pool, decoding: Decoding, accelerator: Accelerator) -> list[ExampleRoutes]:
    """Returns the routes of all examples for each draw (usually one), the same in all processes."""

    def drawn() -> list[ExampleRoutes]:
        by_file = [routes_of_file(model, file, decoding) for file in pool.files]
        return [ExampleRoutes.of_files(list(routes), pool.sizes) for routes in zip(*by_file, strict=True)]

    if decoding.sampled_routes and accelerator.num_processes > 1:
        sampled = on_main(accelerator, lambda: [replace(r, rows_KLE=r.rows_KLE.cpu()) for r in drawn()])
        return [replace(routes, rows_KLE=routes.rows_KLE.to(model.device)) for routes in sampled]
    return drawn()


def routes_of_file(model, file: TaskFile, decoding: Decoding) -> Iterator[Tensor]:
    """Yields the routes for a file: its task's (1, L, E), or (n, L, E), those of its examples or draws."""
    config, source = model.config, model.source
    if source.per_task:
        yield model.routes_for([file.task], noise=decoding.sampled_routes)
        return
    if not source.is_drawn:
        yield routes_of_examples(model, file.encoded)
        return
    size = (len(file.examples), config.num_layers)
    seed = decoding.seed + zlib.crc32(f"{file.sample} {file.part}".encode())
    generator = torch.Generator().manual_seed(seed)
    for _ in range(decoding.random_draws):
        routes_nLE = random_one_hot(size, config.num_experts, generator=generator)
        yield routes_nLE.to(model.device, model.routing_dtype)


ROUTED_AT_ONCE = 256  # examples whose embeddings are in memory


@torch.no_grad()
def routes_of_examples(model, examples: EncodedExamples) -> Tensor:
    """Returns the route (n, L, E) of each example's input."""
    parts = []
    for rows in np.array_split(np.arange(len(examples)), math.ceil(len(examples) / ROUTED_AT_ONCE)):
        prompts, task_ids = prompts_of(examples, rows, model), torch.from_numpy(examples.task_ids_N[rows])
        parts.append(model.draw_routes(task_ids, prompts["input_ids"], prompts["attention_mask"]))
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that go through the model together, along the routes of one of the `draws_of`.

    route: (L, E) if they are all on it and its plain BART answers them, else None. cost: about the number of
    tokens processed.
    """

    draw: int
    route: Tensor | None
    indices: np.ndarray
    cost: int


def answering_batches(
    model, pool: Pool, draws: list[ExampleRoutes], decoding: Decoding, size: int
) -> list[Batch]:
    """Returns the batches to answer all examples, for each draw of routes. size: as --predict_batch_size."""
    kinds = [(False, np.arange(len(pool)))]
    if decoding.scoring == "rank":
        kinds = [(ranked, pool.members(ranked)) for ranked in (False, True)]
    lengths_N = pool.encoded.source_lengths_N + decoding.max_output_length
    most = size * SHORT_PER_LONG
    enough = enough_for_plain(model, size * LONG_EXAMPLE / lengths_N.mean())
    return [
        Batch(draw, route, indices, answering_cost(pool, indices, ranked, decoding.num_beams))
        for draw, routes in enumerate(draws)
        for ranked, members in kinds
        for route, on_route in by_route(model, routes, members, enough)
        for indices in cut(
            longest_first(pool, on_route, by_answer=not ranked), lengths_N, size * LONG_EXAMPLE, most
        )
    ]


def loss_batches(
    model, examples: EncodedExamples, draws: list[ExampleRoutes], size: int | None = None
) -> list[Batch]:
    """Returns the batches to compute the losses of all examples, for each draw of routes; the longest first.

    A plain BART runs them if all have its route, or parameters are merged, which is done once for each route.
    size: as --predict_batch_size; None: as many as MOST_IN_LOSS allows.
    """
    sources_N, targets_N = examples.lengths()
    lengths_N, overhead = sources_N + targets_N, overhead_on(model.device.type)
    most_tokens = min(size * LONG_EXAMPLE, MOST_IN_LOSS) if size else MOST_IN_LOSS
    return [
        Batch(draw, route, on_route[group], int(lengths_N[on_route[group]].sum()))
        for draw, routes in enumerate(draws)
        for route, on_route in by_route(model, routes, np.arange(len(examples)), math.inf)
        for group in reversed(
            micro_batches(sources_N[on_route], targets_N[on_route], most_tokens, overhead_tokens=overhead)
        )
    ]


def enough_for_plain(model, together: float) -> float:
    """Returns the number of examples of a one-hot route from which its plain BART decodes them.

    Fewer are decoded together with those of other routes, at the cost of all experts: a step of a few
    examples takes almost as long as one of many. On a GPU, as in `generate`, more than 2 E routes of a batch
    of `together` examples are decoded together.
    """
    on_cpu = model.device.type == "cpu"
    return ENOUGH_ON_CPU if on_cpu else together / (2 * model.config.num_experts)


def by_route(
    model, routes: ExampleRoutes, members: np.ndarray, enough: float
) -> list[tuple[Tensor | None, np.ndarray]]:
    """Returns pairs of a route (L, E) and the members that its plain BART answers.

    The last pair may have the route None, of members that the routing model answers: their routes have no
    equivalent plain BART, or fewer than `enough` members each. A decoder-only model answers all, because a
    plain one would be a second copy of a large model.
    """
    if not model.config.is_encoder_decoder:
        return [(None, members)] if len(members) else []
    read_KLE = routes.rows_KLE[:, model.config.routed_rows]
    same_K = read_KLE.flatten(1).unique(dim=0, return_inverse=True)[1].cpu().numpy()
    merges = model.config.expert_mixing == "parameters"
    plain_K = ((read_KLE == 0) | (read_KLE == 1)).flatten(1).all(dim=1).cpu().numpy()
    plain_K |= model.config.has_plain_routes
    same_M = same_K[routes.which_N[members]]
    order = np.argsort(same_M, kind="stable")
    groups = np.split(members[order], np.flatnonzero(np.diff(same_M[order])) + 1) if len(members) else []
    pairs, others = [], []
    for group in groups:
        row = routes.which_N[group[0]]
        if plain_K[row] and (merges or len(groups) == 1 or len(group) >= enough):
            pairs.append((routes.rows_KLE[row], group))
        else:
            others.append(group)
    return pairs + ([(None, np.sort(np.concatenate(others)))] if others else [])


def run_batches(
    model, batches: Iterable[Batch], draws: list[ExampleRoutes], run: Callable[..., list]
) -> Iterator[tuple[Batch, list]]:
    """Yields each batch with its results: run(bart, indices, routes (b, L, E)) gives one for each example.

    routes: None for a plain BART. A batch is halved where memory runs out, and so are those after it.
    """
    route, bart, parts = None, model, 1
    for batch in batches:
        if batch.route is not None and batch.route is not route:  # assembled once for all its batches
            route, bart = batch.route, model.to_plain(batch.route)

        def results(indices: np.ndarray, batch=batch, bart=bart) -> list:
            if batch.route is not None:
                return run(bart, indices, None)
            return run(model, indices, draws[batch.draw].routes_of(indices))

        found, parts = in_parts(results, batch.indices, parts)
        yield batch, found


def cut(order: np.ndarray, lengths_N: np.ndarray, max_tokens: int, max_examples: int) -> Iterator[np.ndarray]:
    """Yields the examples of `order` in batches of at most `max_tokens` padded tokens, or of one example."""
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
    its last answer ends.
    """
    sources_M = pool.encoded.source_lengths_N[members]
    doublings_M = np.ceil(np.log2(pool.encoded.target_lengths_N[members])) if by_answer else 0 * sources_M
    return members[np.lexsort((-sources_M, -doublings_M))]


def answering_cost(pool: Pool, indices: np.ndarray, ranked: bool, num_beams: int) -> int:
    """Returns the approximate number of tokens that the model processes to answer the examples."""
    sources_N, targets_N = pool.encoded.source_lengths_N, pool.encoded.target_lengths_N
    cost = int(sources_N[indices].sum())
    if not ranked:
        return cost + num_beams * int(targets_N[indices].sum())
    options = [(i, pool.option_tokens.lengths[np.unique(pool.option_rows[i])]) for i in indices]
    return cost + sum(len(lengths) * int(sources_N[i]) + int(lengths.sum()) for i, lengths in options)


def own_share(batches: list[Batch], accelerator: Accelerator) -> list[int]:
    """Returns ascending indices of this process's batches; all processes get about the same total cost."""
    costs = [batch.cost for batch in batches]
    return assign_to_ranks(costs, accelerator.num_processes)[accelerator.process_index]


def batch_size(model, decoding: Decoding) -> int:
    """Returns the size of batches, as --predict_batch_size."""
    return decoding.batch_size or SIZES.get(model.device.type, SIZES["cpu"])


def in_parts(run: Callable[[np.ndarray], list], indices: np.ndarray, parts: int) -> tuple[list, int]:
    """Returns run(indices), a list, made in parts; and their number, twice as many where memory runs out."""
    pieces = np.array_split(indices, min(parts, len(indices)))
    try:
        return [result for piece in pieces for result in run(piece)], parts
    except Exception as error:
        if len(pieces) == len(indices) or not should_reduce_batch_size(error):
            raise
    release_memory()
    return in_parts(run, indices, 2 * len(pieces))
