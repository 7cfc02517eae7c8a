"""Texts from texts: ASLG-PC12 (Othman & Jemni 2012), CommonGen (Lin et al. 2020), CoS-E (Rajani et al. 2019),
domain names (Zhu et al. 2020), E2E NLG (Dušek et al. 2019), WikiBio (Lebret et al. 2016) and WikiSplit
(Botha et al. 2018); replies: ELI5 (Fan et al. 2019) and EmpatheticDialogues (Rashkin et al. 2019);
summaries: AESLC (Zhang & Tetreault 2019), Gigaword (Rush et al. 2015), Multi-News (Fabbri et al. 2019),
Reddit TIFU (Kim et al. 2019), SAMSum (Gliwa et al. 2019) and XSum (Narayan et al. 2018).
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from dataloader.building.raw_file import RawFile, records
from dataloader.building.recipe import Hub, Raw, Recipe, Row, Source, test_share, text_to_text
from dataloader.building.text import clean, lettered, no_breaks, no_line_feeds, tabs

ASLG = "https://www.achrafothman.net/aslsmt/corpus/sample-corpus-asl-en."
COMMONSENSE = "https://s3.amazonaws.com/commensenseqa/"
COS_E = "https://raw.githubusercontent.com/salesforce/cos-e/master/data/v1.11/cose_{}_v1.11_processed.jsonl"
DOMAINS = "https://raw.githubusercontent.com/google-research-datasets/common-crawl-domain-names/master/data/"
E2E = "https://github.com/tuetschek/e2e-cleaning/raw/master/cleaned-data/"
WIKI_SPLIT = "https://github.com/google-research-datasets/wiki-split/raw/master/"


def read_aslg(_: str, glosses: RawFile, texts: RawFile) -> Iterator[Row]:
    for gloss, text in zip(glosses.lines(), texts.lines(), strict=False):
        yield {"gloss": gloss, "text": text}


def merge_targets(rows: Iterable[Row], _: np.random.RandomState) -> Iterator[Row]:
    """Yields a row for each set of concepts, with all its sentences."""
    groups: dict[int, Row] = {}
    for row in rows:
        group = groups.setdefault(row["concept_set_idx"], {"concepts": row["concepts"], "targets": []})
        group["targets"].append(row["target"])
    yield from groups.values()


def read_cos_e(_: str, explanations: RawFile, questions: RawFile) -> Iterator[Row]:
    """Yields the questions that have an explanation, in the order of the explanations."""
    by_id = {item["id"]: item["question"] for item in questions.json_lines()}
    for item in explanations.json_lines():
        question = by_id[item["id"]]
        yield {
            "question": question["stem"],
            "choices": [choice["text"] for choice in question["choices"]],
            "abstractive_explanation": item["explanation"]["open-ended"],
        }


def read_domains(_: str, file: RawFile) -> Iterator[Row]:
    for line in file.lines():
        yield {"example": line.rstrip()}


def read_e2e(_: str, file: RawFile) -> Iterator[Row]:
    for row in file.records():
        yield {"meaning_representation": row["mr"], "human_reference": row["ref"]}


def table_rows(table: dict[str, list[str]]) -> str:
    pairs = zip(table["column_header"], table["content"], strict=True)
    return "".join(f"{header}: {no_line_feeds(content.strip())} [n] " for header, content in pairs)


def read_wiki_split(_: str, file: RawFile) -> Iterator[Row]:
    for sentence, simple, *_rest in file.table("\t"):
        first, second = simple.split("<::::>")[:2]
        yield {"complex_sentence": sentence, "simple_sentence_1": first, "simple_sentence_2": second}


def same_length(row: Row) -> bool:
    table = row["input_text"]["table"]
    return len(table["column_header"]) == len(table["content"])


EMPATHETIC = (
    "https://dl.fbaipublicfiles.com/parlai/empatheticdialogues/"
    "empatheticdialogues.tar.gz!empatheticdialogues/"
)


def eli5(subreddit: str) -> Recipe:
    return text_to_text(
        f"eli5-{subreddit}",
        Hub("defunct-datasets/eli5"),
        splits=(f"train_{subreddit}", f"validation_{subreddit}"),
        split_rule=test_share(0.1),
        input=lambda row: clean(f"{row['title']} [SEP] {row['selftext']}"),
        output=lambda row: tabs(map(clean, row["answers"]["text"])),
        gone=True,
    )


def merge_replies(rows: Iterable[Row], _: np.random.RandomState) -> Iterator[Row]:
    """Yields a row for each prompt and emotion, with the utterances of all its dialogues."""
    replies: dict[str, list[str]] = {}
    for row in rows:
        prompt, utterance = (row[column].replace("_comma_", ",") for column in ("prompt", "utterance"))
        replies.setdefault(f"{prompt} [SEP] {row['context']}", []).append(no_breaks(utterance))
    for prompt, utterances in replies.items():
        yield {"prompt": prompt, "replies": utterances}


AESLC = "https://github.com/ryanzhumich/AESLC/archive/master.zip"


def read_aeslc(split: str, archive: RawFile) -> Iterator[Row]:
    """Yields the emails: lines of the body, an empty line, a line "@subject", lines of the subject."""
    folder = "dev" if split == "validation" else split
    for file in archive.members(f"AESLC-master/enron_subject_line/{folder}/", ".subject"):
        lines = file.text().split("\n")
        end = lines.index("")
        subject = lines[end + 2 :]
        subject = subject[: subject.index("")] if "" in subject else subject
        yield {"email_body": "\n".join(lines[:end]), "subject_line": "\n".join(subject)}


def summaries(
    task: str, *sources: Source, document: str, summary: str, one_line: Callable[[str], str] = clean, **fields
) -> Recipe:
    """Returns a recipe for summaries; document, summary: the columns, which `one_line` puts on one line."""
    return text_to_text(
        task,
        *sources,
        input=lambda row: "summarize: " + one_line(row[document]),
        output=lambda row: one_line(row[summary]),
        **fields,
    )


def reddit_tifu(column: str) -> Recipe:
    return summaries(
        f"reddit_tifu-{column}",
        Hub("ctr4si/reddit_tifu", "long"),
        splits=("train",),
        document="documents",
        summary=column,
    )


RECIPES = [
    text_to_text(
        "aslg_pc12",
        Raw(read_aslg, train=(f"{ASLG}asl", f"{ASLG}en")),
        Hub("achrafothman/aslg_pc12"),
        splits=("train",),
        input=lambda row: row["text"].strip(),
        output=lambda row: row["gloss"].strip(),
    ),
    text_to_text(
        "common_gen",
        Hub("allenai/common_gen"),  # the original archive does not have the (random) order of the concepts
        prepare=merge_targets,
        input=lambda row: ", ".join(row["concepts"]),
        output=lambda row: tabs(row["targets"]),
    ),
    text_to_text(
        "cos_e",
        Raw(
            read_cos_e,
            train=(COS_E.format("train"), f"{COMMONSENSE}train_rand_split.jsonl"),
            validation=(COS_E.format("dev"), f"{COMMONSENSE}dev_rand_split.jsonl"),
        ),
        Hub("Salesforce/cos_e", "v1.11"),
        input=lambda row: clean(row["question"]) + lettered(row["choices"]),
        output="{abstractive_explanation}",
    ),
    text_to_text(
        "crawl_domain",
        Raw(read_domains, train=f"{DOMAINS}train.txt", validation=f"{DOMAINS}eval.txt"),
        Hub("community-datasets/crawl_domain"),
        input=lambda row: row["example"].replace(" ", "").lower(),
        output="{example}",
    ),
    text_to_text(
        "e2e_nlg_cleaned",
        Raw(read_e2e, train=f"{E2E}train-fixed.no-ol.csv", validation=f"{E2E}devel-fixed.no-ol.csv"),
        Hub("tuetschek/e2e_nlg_cleaned"),
        input="{meaning_representation}",
        output="{human_reference}",
    ),
    text_to_text(
        "wiki_bio",
        Hub("michaelauli/wiki_bio"),
        splits=("train", "val"),
        keep=same_length,
        split_rule=test_share(0.01),
        input=lambda row: (
            f"{row['input_text']['context'].strip()} [SEP] {table_rows(row['input_text']['table'])}"
        ),
        output=lambda row: no_line_feeds(row["target_text"]),
    ),
    text_to_text(
        "wiki_split",
        Raw(
            read_wiki_split,
            train=f"{WIKI_SPLIT}train.tsv.zip!train.tsv",
            validation=f"{WIKI_SPLIT}validation.tsv",
        ),
        Hub("google-research-datasets/wiki_split"),
        input="sentence 1: {simple_sentence_1} [SEP] sentence 2: {simple_sentence_2}",
        output="{complex_sentence}",
    ),
    eli5("askh"),
    eli5("asks"),
    eli5("eli5"),
    text_to_text(
        "empathetic_dialogues",
        Raw(records, train=f"{EMPATHETIC}train.csv", validation=f"{EMPATHETIC}valid.csv"),
        Hub("facebook/empathetic_dialogues"),
        keep=lambda row: "hit:" not in row["utterance"],
        prepare=merge_replies,
        split_rule=test_share(0.2),
        input="{prompt}",
        output=lambda row: tabs(row["replies"]),
        terms="CC BY-NC 4.0: non-commercial use",
    ),
    summaries(
        "aeslc",
        Raw(read_aeslc, every=AESLC),
        Hub("Yale-LILY/aeslc"),
        document="email_body",
        summary="subject_line",
        terms="CC BY-NC-SA 4.0: non-commercial use",
    ),
    text_to_text(
        "gigaword",
        Hub("Harvard/gigaword"),
        input="summarize: {document}",
        output="{summary}",
        terms="licence of the LDC (LDC2003T05 and later); the text may not be passed on",
    ),
    summaries(
        "multi_news",
        Hub("alexfabbri/multi_news"),
        document="document",
        summary="summary",
        one_line=no_line_feeds,
        terms="non-commercial research and education only",
    ),
    reddit_tifu("title"),
    reddit_tifu("tldr"),
    summaries(
        "samsum",
        Hub("Samsung/samsum"),
        document="dialogue",
        summary="summary",
        terms="CC BY-NC-ND 4.0: non-commercial use, no derivatives",
    ),
    text_to_text(
        "xsum",
        Hub("EdinburghNLP/xsum"),
        input=lambda row: "summarize: " + no_line_feeds(row["document"]),
        output="{summary}",
    ),
]
