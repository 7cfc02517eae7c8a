"""LoraRetriever: each example takes the experts whose tasks have the most similar texts (arXiv 2402.09997).

    python example_scripts/methods/lora_retriever.py models/library models/retriever
    routing-moe answer --plugin example_scripts/methods/lora_retriever.py --checkpoint models/retriever

Zhao et al. 2024: low-rank experts are trained apart, a task for each. A text has a vector, an expert the mean
vector of the inputs of its task; the TOP experts of the largest cosines count equally ("mixture", of their
outputs). The vectors of the paper are those of a sentence encoder; here they are mean embeddings of the
model. Texts are read as the run reads them: without the task's name, if that is hidden. Nothing is trained.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also without installation

from routing_moe import ROUTE_SOURCES, RouteSource
from routing_moe.model.route_sources import RouteBatch

NAME, TOP = "lora_retriever", 3


class LoraRetriever(nn.Module, RouteSource):
    """Equal weights of the experts of the TOP nearest tasks, in all layers."""

    per_task, reads_inputs = False, True

    def __init__(self, config):
        super().__init__()
        width = getattr(config, "backbone", config).hidden_size
        self.register_buffer("centres_ED", torch.zeros(config.num_experts, width))

    def routes(self, model, batch):
        E, L = len(self.centres_ED), model.config.num_layers
        cosines_BE = normalize(batch.pooled(model), dim=-1) @ normalize(self.centres_ED, dim=-1).T
        top_BK = cosines_BE.topk(min(TOP, E), dim=-1).indices
        route_BE = torch.zeros_like(cosines_BE).scatter_(1, top_BK, 1 / top_BK.shape[1])
        return route_BE[:, None].expand(-1, L, -1)


ROUTE_SOURCES[NAME] = LoraRetriever


@torch.no_grad()
def retrieving(tasks):
    """Returns the mixture of `Tasks`, with an expert for each task, with routes of its examples."""
    model, pad = tasks.model, tasks.model.config.pad_token_id
    experts_N = model.routes_for(tasks.names)[:, 0].argmax(dim=-1)
    model.use_routes(NAME)
    for n, expert in enumerate(experts_N.tolist()):
        rows = tasks.rows_of(n)
        batch = tasks.rows.collate(rows, pad_token_id=pad)
        read = RouteBatch(torch.full((len(rows),), n), batch["input_ids"], batch["attention_mask"])
        model.router.centres_ED[expert] = read.pooled(model).mean(dim=0)
    return model


def main(run: str, folder: str) -> None:
    from find_groups import Tasks

    from routing_moe.checkpoints.folder import save_checkpoint

    tasks = Tasks.of_run(run, seed=0)
    save_checkpoint(retrieving(tasks), tasks.routed.tokenizer, folder)
    print(f"{len(tasks.names)} experts are chosen by texts, in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
