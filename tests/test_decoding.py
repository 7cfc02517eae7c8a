"""The maximum length of generated answers."""

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_steps import encoded
from transformers import AutoTokenizer

from dataloader import Example
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer
from task.skill_gym import TINY_BART

LONGEST = 6


class WordsOfTarget:
    """A tokenizer that decodes to all token ids."""

    def batch_decode(self, sequences, **kwargs):
        return [" ".join(map(str, row.tolist())) for row in sequences]


@pytest.mark.parametrize("from_bos", [False, True])
def test_an_answer_may_be_as_long_as_a_training_target_but_not_longer(make_model, from_bos):
    AcceleratorState._reset_state(reset_partial_state=True)
    model = make_model(num_experts=1)
    model.final_logits_bias[0, 7] = 100.0  # always the same word, never the end token
    inputs = encoded([[0, 5, 2]], [[0, 7, 2]], [0])
    file = TaskFile("a", "a_1_13", "dev", "EM", [Example("a", "a_1_13", "x", ("y",))], inputs)
    decoding = Decoding(num_beams=1, max_output_length=LONGEST, generate_from_bos=from_bos)
    ((answers,),) = answer(model, WordsOfTarget(), [file], decoding, Accelerator(cpu=True))
    tokens = answers.texts[0].split()
    # Training targets begin with <s>; the decoder starts from </s>, which is not part of a target.
    target = tokens if from_bos else tokens[1:]
    assert tokens[0] == str(model.config.bos_token_id if from_bos else model.config.decoder_start_token_id)
    assert len(target) == LONGEST


def test_generate_of_a_checkpoint_ends_beams_as_the_commands_do(make_model, tmp_path):
    model = make_model()
    model.generation_config.update(early_stopping=True, num_beams=4)  # as bart-base
    save_checkpoint(model, AutoTokenizer.from_pretrained(TINY_BART), tmp_path / "best")
    saved = RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "best")
    assert saved.generation_config.early_stopping is False
    assert model.generation_config.early_stopping is True  # the caller's model stays as it was
    route_LE = saved.routes_for(saved.config.task_names[:1], mode="gumbel_softmax_st")[0]
    assert saved.to_bart(route_LE).generation_config.early_stopping is False
