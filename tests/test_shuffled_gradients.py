"""Gradients minus those with the answers of other rows: by hand, and of one, two and more answers."""

import numpy as np
import pytest
import tiny_vectors
import torch
from tiny_vectors import extractor, vectors

from dataloader.encoding import EncodedExamples
from dataloader.errors import InputError
from task.task_emb.fisher_information import bart_log_likelihood, fisher_batches
from task.task_emb.mean_gradient import chosen_parameters, mean_gradient, route_of, shuffled


@pytest.mark.parametrize(("N", "count", "expected"), [(2, 1, 1), (7, 1, 1), (7, 3, 3), (5, 9, 4)])
def test_shuffled_answers_are_those_of_other_rows(N, count, expected):
    assignments = shuffled(N, count)
    assert len({tuple(answers_N) for answers_N in assignments}) == len(assignments) == expected
    for answers_N in assignments:
        assert sorted(answers_N) == list(range(N))
        assert (answers_N != np.arange(N)).all()
    with pytest.raises(ValueError, match="at least 2 rows"):
        shuffled(1, 1)


def test_the_gradient_with_shuffled_answers_is_subtracted(world, tmp_path):
    one = extractor(world, weights="layers", projection_dim=0)
    examples, model = one.encoded("count"), one.model
    plan = model.plan_routes(route_of(model, "count"))
    parameters = chosen_parameters(model, "layers")

    def mean(answers_N):
        """The gradient of one example after the other, with the answer of another row."""
        likelihood, sums = bart_log_likelihood(model, plan), 0.0
        for row, other in enumerate(answers_N):
            pair = EncodedExamples.joined([examples.subset(np.array([i])) for i in (row, other)])
            single = pair.with_answers_of(np.array([1, 1])).subset(np.array([0]))
            gradients = mean_gradient(likelihood, parameters, fisher_batches(single, model, 0, 1))
            sums = sums + torch.cat([gradient.flatten() for gradient in gradients.values()]).double()
        return sums / len(answers_N)

    N = len(examples)
    expected = mean(range(N)) - sum(map(mean, shuffled(N, 2))) / 2
    assert expected.abs().max() > 1e-3
    found = extractor(world, weights="layers", projection_dim=0, minus_shuffled=2).vector_of("count")
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-5)
    flags = dict(weights="layers", projection_dim=0, minus_shuffled=2)
    assert tiny_vectors.run("gradient", world.gym, world.bart, tmp_path / "vectors", **flags) == 0
    np.testing.assert_allclose(vectors(tmp_path / "vectors")["count"], found, rtol=1e-5, atol=1e-7)


def test_two_exchanged_answers_have_opposite_vectors_and_one_answer_has_none(world):
    one = extractor(world, weights="layers", minus_shuffled=1, projection_dim=0)
    examples = one.encoded("count").subset(np.arange(5))

    def vector(*answers):
        """Of five inputs with these answers, by their row."""
        one.encoded = lambda task: examples.with_answers_of(np.array(answers))
        return one.vector_of("count")

    found = vector(0, 1, 0, 0, 1)
    assert np.linalg.norm(found) > 1e-2
    np.testing.assert_allclose(vector(1, 0, 1, 1, 0), -found, rtol=1e-3, atol=1e-5)
    assert np.abs(vector(1, 2, 1, 1, 2) + found).max() > 1e-3  # of other answers
    np.testing.assert_allclose(vector(0, 0, 0, 0, 0), 0, atol=1e-5)


def test_the_first_accepted_answer_of_the_other_row_is_taken(world):
    examples = extractor(world).encoded("colour")
    assert examples.n_outputs_N.max() > 1
    order = np.roll(np.arange(len(examples)), 1)
    answered = examples.with_answers_of(order)
    assert np.array_equal(answered.n_outputs_N, examples.n_outputs_N[order])
    assert np.array_equal(answered.target_lengths_N, examples.target_lengths_N[order])
    assert np.array_equal(answered.source_lengths_N, examples.source_lengths_N)
    for row, other in enumerate(order):
        batch = answered.collate([row], pad_token_id=1)
        of_row, of_other = (examples.collate([i], pad_token_id=1) for i in (row, other))
        assert torch.equal(batch["input_ids"], of_row["input_ids"])
        assert torch.equal(batch["labels"], of_other["labels"])


def test_a_task_with_one_row_has_no_shuffled_answers(world):
    one = extractor(world, minus_shuffled=1)
    encoded_examples = one.encoded("count")
    one.encoded = lambda task: encoded_examples.subset(np.array([0]))
    with pytest.raises(InputError, match="--minus_shuffled needs at least 2 train rows; count has 1"):
        one.vector_of("count")


def test_one_row_of_each_task_is_refused_before_the_model_is_loaded(world, tmp_path, capsys):
    flags = dict(minus_shuffled=1, max_examples=1)
    assert tiny_vectors.run("gradient", world.gym, world.bart, tmp_path / "out", **flags) == 2
    assert (
        "--minus_shuffled needs at least 2 rows of a task, but --max_examples is 1" in capsys.readouterr().err
    )
