"""Reading comprehension: AdversarialQA (Bartolo et al. 2020), BioMRC (Pappas et al. 2020), DuoRC (Saha et al.
2018), HotpotQA (Yang et al. 2018), QA-SRL (He et al. 2015), Quoref (Dasigi et al. 2019), ROPES (Lin et al.
2019), SQuAD (Rajpurkar et al. 2016) and TweetQA (Xiong et al. 2019)."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, json_list, squad
from dataloader.building.recipe import Hub, Raw, Row, test_share, text_to_text
from dataloader.building.text import clean, no_line_feeds, tabs

ADVERSARIAL = "https://adversarialqa.github.io/data/aqa_v1.0.zip!combined/"
DUORC = "https://raw.githubusercontent.com/duorc/duorc/master/dataset/SelfRC_"
QA_SRL = "https://dada.cs.washington.edu/qasrl/data/wiki1."
QUOREF = (
    "https://quoref-dataset.s3-us-west-2.amazonaws.com/train_and_dev/"
    "quoref-train-dev-v0.1.zip!quoref-train-dev-v0.1/quoref-"
)
ROPES = (
    "https://ropes-dataset.s3-us-west-2.amazonaws.com/train_and_dev/"
    "ropes-train-dev-v1.0.tar.gz!ropes-train-dev-v1.0/"
)
SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
TWEET_QA = "https://sites.cs.ucsb.edu/~xwhan/datasets/tweetqa.zip!TweetQA_data/"
LONG_PLOT = (  # a notice of Wikipedia in place of a plot
    "This article's plot summary may be too long or excessively detailed. Please help improve it by removing "
    "unnecessary details and making it more concise."
)


def read_duorc(_: str, file: RawFile) -> Iterator[Row]:
    for movie in file.json():
        for item in movie["qa"]:
            yield {
                "plot": movie["plot"].strip(),
                "question": item["question"].strip(),
                "answers": [answer.strip() for answer in item["answers"]],
                "no_answer": item["no_answer"],
            }


def read_qa_srl(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the questions of blocks: a line with the identifier, the sentence, and for each predicate a line
    of three fields and a line for each question: eight fields of the question, then the answers."""
    for block in file.text().strip("\n").split("\n\n"):
        _identifier, sentence, *lines = block.strip("\n").split("\n")
        for fields in (line.split("\t") for line in lines):
            if len(fields) > 8:
                answers = fields[8:]
                if "###" in answers[0]:
                    answers = [answer.strip() for answer in answers[0].split("###")]
                yield {"sentence": sentence, "question": fields[:8], "answers": answers}


def without_outer_spaces(row: Row) -> Row:
    """Returns a row of SQuAD as it was in 2021; since then, spaces around the texts are kept."""
    answers = {"text": [text.strip() for text in row["answers"]["text"]]}
    return {"question": row["question"].strip(), "context": row["context"].strip(), "answers": answers}


def supporting_paragraphs(row: Row) -> str:
    titles, paragraphs = row["context"]["title"], row["context"]["sentences"]
    supporting = row["supporting_facts"]["title"]
    pairs = zip(titles, paragraphs, strict=True)
    return " ".join("".join(sentences) for title, sentences in pairs if title in supporting).strip()


SQUAD_SOURCES = (
    Raw(squad, train=f"{SQUAD}train-v1.1.json", validation=f"{SQUAD}dev-v1.1.json"),
    Hub("rajpurkar/squad", adapt=without_outer_spaces),
)

RECIPES = [
    text_to_text(
        "adversarialqa",
        Raw(squad, train=f"{ADVERSARIAL}train.json", validation=f"{ADVERSARIAL}dev.json"),
        Hub("UCLNLP/adversarial_qa", "adversarialQA"),
        input="question: {question} context: {context}",
        output=lambda row: tabs(row["answers"]["text"]),
    ),
    text_to_text(
        "biomrc",
        Hub("nlpaueb/biomrc", "biomrc_large_B"),
        input=lambda row: (
            f"question: {no_line_feeds(row['title'])} context: {no_line_feeds(row['abstract'])}"
        ),
        output="{answer}",
        split_rule=test_share(0.1),
    ),
    text_to_text(
        "duorc",
        Raw(read_duorc, train=f"{DUORC}train.json", validation=f"{DUORC}dev.json"),
        Hub("ibm-research/duorc", "SelfRC"),
        keep=lambda row: not row["no_answer"] and not row["plot"].startswith(LONG_PLOT),
        input=lambda row: clean(f"question: {row['question']} context: {row['plot']}"),
        output=lambda row: tabs(map(clean, dict.fromkeys(row["answers"]))),
    ),
    text_to_text(
        "hotpot_qa",
        Hub("hotpotqa/hotpot_qa", "distractor"),  # the original files have 610 MB
        input=lambda row: f"question: {row['question']} context: {supporting_paragraphs(row)}",
        output="{answer}",
    ),
    text_to_text(
        "qa_srl",
        Raw(read_qa_srl, train=f"{QA_SRL}train.qa", validation=f"{QA_SRL}dev.qa"),
        Hub("luheng/qa_srl"),
        input=lambda row: f"question: {' '.join(row['question'])} context: {row['sentence']}",
        output=lambda row: tabs(row["answers"]),
    ),
    text_to_text(
        "quoref",
        Raw(squad, train=f"{QUOREF}train-v0.1.json", validation=f"{QUOREF}dev-v0.1.json"),
        Hub("allenai/quoref"),
        input=lambda row: no_line_feeds(f"question: {row['question']} context: {row['context']}"),
        output=lambda row: tabs(row["answers"]["text"]),
    ),
    text_to_text(
        "ropes",
        Raw(squad, train=f"{ROPES}train-v1.0.json", validation=f"{ROPES}dev-v1.0.json"),
        Hub("allenai/ropes"),
        input=lambda row: no_line_feeds(
            "question: {question} [SEP] situation: {situation} [SEP] background: {background}".format_map(row)
        ),
        output=lambda row: tabs(row["answers"]["text"]),
    ),
    text_to_text(
        "squad-with_context",
        *SQUAD_SOURCES,
        input=lambda row: f"question: {row['question']} context: {clean(row['context'])}",
        output=lambda row: tabs(dict.fromkeys(row["answers"]["text"])),
    ),
    text_to_text(
        "squad-no_context",
        *SQUAD_SOURCES,
        input="question: {question}",
        output=lambda row: tabs(dict.fromkeys(row["answers"]["text"])),
    ),
    text_to_text(
        "tweet_qa",
        Raw(json_list, train=f"{TWEET_QA}train.json", validation=f"{TWEET_QA}dev.json"),
        Hub("ucsbnlp/tweet_qa"),
        input=lambda row: clean(f"question: {row['Question']} context: {row['Tweet']}"),
        output=lambda row: tabs(map(clean, row["Answer"])),
    ),
]
