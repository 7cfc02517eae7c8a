"""Pairs of texts: paraphrases in PAWS (Zhang et al. 2019) and medical questions (McCreery et al. 2020),
simplifications in WikiAuto (Jiang et al. 2020), answers in WikiQA (Yang et al. 2015) and MOCHA (Chen et
al. 2020), connectives in Discovery (Sileo et al. 2019), and the minimal pairs of BLiMP (Warstadt et al.
2020) and CrowS-Pairs (Nangia et al. 2020).
"""

from collections.abc import Iterable, Iterator

import numpy as np

from dataloader.building.raw_file import RawFile, cells, json_lines, records
from dataloader.building.recipe import Hub, Raw, Row, classification, test_share
from dataloader.building.text import word

MEDICAL = "https://raw.githubusercontent.com/curai/medical-question-pair-dataset/master/mqp.csv"
MOCHA = "https://github.com/anthonywchen/MOCHA/raw/main/data/mocha.tar.gz!mocha/"
WIKI_AUTO = "https://github.com/chaojiang06/wiki-auto/raw/master/wiki-manual/"
# in the order of the label indices; 174 quoted words are harder to read
CONNECTIVES = """
[no-conn] absolutely, accordingly actually, additionally admittedly, afterward again, already, also,
alternately, alternatively although, altogether, amazingly, and anyway, apparently, arguably,
as_a_result, basically, because_of_that because_of_this besides, but by_comparison, by_contrast,
by_doing_this, by_then certainly, clearly, coincidentally, collectively, consequently conversely
curiously, currently, elsewhere, especially, essentially, eventually, evidently, finally, first,
firstly, for_example for_instance fortunately, frankly, frequently, further, furthermore generally,
gradually, happily, hence, here, historically, honestly, hopefully, however ideally, immediately,
importantly, in_contrast, in_fact, in_other_words in_particular, in_short, in_sum, in_the_end,
in_the_meantime, in_turn, incidentally, increasingly, indeed, inevitably, initially, instead,
interestingly, ironically, lastly, lately, later, likewise, locally, luckily, maybe, meaning,
meantime, meanwhile, moreover mostly, namely, nationally, naturally, nevertheless next, nonetheless
normally, notably, now, obviously, occasionally, oddly, often, on_the_contrary, on_the_other_hand
once, only, optionally, or, originally, otherwise, overall, particularly, perhaps, personally, plus,
preferably, presently, presumably, previously, probably, rather, realistically, really, recently,
regardless, remarkably, sadly, second, secondly, separately, seriously, significantly, similarly,
simultaneously slowly, so, sometimes, soon, specifically, still, strangely, subsequently, suddenly,
supposedly, surely, surprisingly, technically, thankfully, then, theoretically, thereafter, thereby,
therefore third, thirdly, this, though, thus, together, traditionally, truly, truthfully, typically,
ultimately, undoubtedly, unfortunately, unsurprisingly, usually, well, yet,
""".split()  # noqa: SIM905


def read_mocha(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the candidate answers of all data sets; scores have the precision of float32."""
    for samples in file.json().values():
        for row in samples.values():
            yield row | {"score": float(np.float32(row["score"]))}


def read_wiki_auto(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the pairs; later versions of the file have a sixth column, and "partialAligned" pairs."""
    for line in file.lines():
        label, _, _, simple, normal, *_rest = line.strip().split("\t")
        label = {"notAligned": 0, "aligned": 1, "partialAligned": 1}[label]
        yield {"alignment_label": label, "normal_sentence": normal, "simple_sentence": simple}


def two_alignment_labels(row: Row) -> Row:
    """Returns a row of the hub with partial alignments (label 2), which 2021 did not have, as alignments."""
    return row | {"alignment_label": min(row["alignment_label"], 1)}


BLIMP = "https://raw.githubusercontent.com/alexwarstadt/blimp/master/data/"
CROWS = "https://raw.githubusercontent.com/nyu-mll/crows-pairs/master/data/crows_pairs_anonymized.csv"
PARADIGMS = (
    *("anaphor_gender_agreement", "anaphor_number_agreement"),
    *("determiner_noun_agreement_with_adj_irregular_1", "ellipsis_n_bar_1", "ellipsis_n_bar_2"),
    *("existential_there_quantifiers_1", "irregular_past_participle_adjectives"),
    *("sentential_negation_npi_licensor_present", "sentential_negation_npi_scope", "wh_questions_object_gap"),
)


def in_random_order(right: str, wrong: str):
    """Returns the preparation that draws which of two columns is sentence 1."""

    def prepare(rows: Iterable[Row], generator: np.random.RandomState) -> Iterator[Row]:
        for row in rows:
            if generator.random_sample() > 0.5:
                yield {"first": row[right], "second": row[wrong], "answer": "sentence 1"}
            else:
                yield {"first": row[wrong], "second": row[right], "answer": "sentence 2"}

    return prepare


def pair(task: str, *sources, right: str, wrong: str, split: str):
    return classification(
        task,
        *sources,
        splits=(split,),
        prepare=in_random_order(right, wrong),
        input="sentence 1: {first} [SEP] sentence 2: {second}",
        output="{answer}",
    )


RECIPES = [
    classification(
        "discovery",
        Hub("sileod/discovery", "discovery"),
        split_rule=test_share(0.1),
        input="sentence 1: {sentence1} [SEP] sentence 2: {sentence2}",
        output=word("label", *CONNECTIVES),
    ),
    classification(
        "medical_questions_pairs",
        Raw(cells(question_1=1, question_2=2, label=3), train=MEDICAL),
        Hub("curaihealth/medical_questions_pairs"),
        splits=("train",),
        input="question 1: {question_1} [SEP] question 2: {question_2}",
        output=word("label", "Similar", "Dissimilar"),  # as published, although 1 means similar
    ),
    classification(
        "mocha",
        Raw(read_mocha, train=f"{MOCHA}train.json", validation=f"{MOCHA}dev.json"),
        keep=lambda row: float(row["score"]).is_integer(),
        input="question: {question} [SEP] context: {context} [SEP] reference: {reference} "
        "[SEP] candidate{candidate}",
        output=lambda row: str(int(row["score"])),
    ),
    classification(
        "paws",
        Hub("google-research-datasets/paws", "labeled_final"),
        input="sentence 1: {sentence1} [SEP] sentence 2: {sentence2}",
        output="{label}",
    ),
    classification(
        "wiki_auto",
        Raw(read_wiki_auto, train=f"{WIKI_AUTO}train.tsv", dev=f"{WIKI_AUTO}dev.tsv"),
        Hub("chaojiang06/wiki_auto", "manual", adapt=two_alignment_labels),
        splits=("train", "dev"),
        input="normal sentence: {normal_sentence} [SEP] simple_sentence: {simple_sentence}",
        output=word("alignment_label", "notAligned", "aligned"),
    ),
    classification(
        "wiki_qa",
        Hub("microsoft/wiki_qa"),
        input="question: {question} [SEP] answer: {answer}",
        output=word("label", "false", "true"),
        terms="Microsoft Research data licence: research use; the data may not be passed on",
    ),
    *(
        pair(
            f"blimp-{paradigm}",
            Hub("nyu-mll/blimp", paradigm),
            Raw(json_lines, train=f"{BLIMP}{paradigm}.jsonl"),
            right="sentence_good",
            wrong="sentence_bad",
            split="train",
        )
        for paradigm in PARADIGMS
    ),
    pair(
        "crows_pairs",
        Raw(records, test=CROWS),
        Hub("nyu-mll/crows_pairs"),
        right="sent_more",
        wrong="sent_less",
        split="test",
    ),
]
