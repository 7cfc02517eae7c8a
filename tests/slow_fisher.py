"""Fisher information with one backward pass per example: the slow reference of `diagonal_fisher`."""

import torch


def diagonal_fisher_one_by_one(log_likelihood, parameters, batches):
    """As `task.task_emb.gradients.diagonal_fisher`."""
    squares = []
    for batch in batches:
        for i in range(len(next(iter(batch.values())))):
            leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
            example = {name: tensor[i] for name, tensor in batch.items()}
            gradients = torch.autograd.grad(log_likelihood(leaves, example), list(leaves.values()))
            squares.append([gradient.double() ** 2 for gradient in gradients])
    if not squares:
        raise ValueError("no examples")
    sums = [torch.stack(of_parameter).mean(dim=0) for of_parameter in zip(*squares, strict=True)]
    return dict(zip(parameters, sums, strict=True))
