"""Topic, kind and level of a text: AG News, DBpedia and Yahoo! Answers (Zhang et al. 2015), spam in text
messages (Almeida et al. 2011), intents of citations (Cohan et al. 2019), OneStopEnglish (Vajjala and Lucic
2018) and adverse effects of drugs (Gurulingappa et al. 2012).
"""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, cells
from dataloader.building.recipe import Hub, Raw, Row, classification, test_share, text_to_text
from dataloader.building.text import clean, no_line_feeds, word

GITHUB = "https://raw.githubusercontent.com/"
ADE = f"{GITHUB}trunghlt/AdverseDrugReaction/master/ADE-Corpus-V2/"
ADE_HUB = "ade-benchmark-corpus/ade_corpus_v2"
AG_NEWS = f"{GITHUB}mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
INTENTS = ("method", "background", "result")
ONESTOP = "https://github.com/purvimisal/OneStopCorpus-Compiled/raw/main/Texts-SeparatedByReadingLevel.zip"
SMS = "http://archive.ics.uci.edu/ml/machine-learning-databases/00228/smsspamcollection.zip!SMSSpamCollection"
# fmt: off
DBPEDIA_CLASSES = ("Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder",
                   "MeanOfTransportation", "Building", "NaturalPlace", "Village", "Animal", "Plant", "Album",
                   "Film", "WrittenWork")
YAHOO_TOPICS = ("Society & Culture", "Science & Mathematics", "Health", "Education & Reference",
                "Computers & Internet", "Sports", "Business & Finance", "Entertainment & Music",
                "Family & Relationships", "Politics & Government")
# fmt: on


def read_sentences(_: str, related: RawFile, unrelated: RawFile) -> Iterator[Row]:
    """Yields the sentences about an adverse effect, once for each effect, and then those without one."""
    for line in related.lines():
        yield {"text": line.strip().split("|")[1], "label": 1}
    for line in unrelated.lines():
        yield {"text": " ".join(line.strip().split(" ")[2:]), "label": 0}


def read_ag_news(_: str, file: RawFile) -> Iterator[Row]:
    for label, title, description in file.table(skipinitialspace=True):
        yield {"text": f"{title} {description}", "label": int(label) - 1}


def citation(row: Row) -> str:
    text = row["string"]
    marker = text[row["citeStart"] : row["citeEnd"]]
    return clean(f"{marker} [SEP] {no_line_feeds(text)} [SEP] {row['sectionName']}")


def read_onestop(_: str, archive: RawFile) -> Iterator[Row]:
    """Yields the texts by level; each has a file of its own. A file that is not UTF-8 is left out."""
    for label, folder in enumerate(("Ele-Txt", "Int-Txt", "Adv-Txt")):
        for file in archive.members(f"Texts-SeparatedByReadingLevel/{folder}/"):
            try:
                yield {"text": file.text("utf-8-sig").strip(), "label": label}
            except UnicodeDecodeError:
                continue


def read_sms(_: str, file: RawFile) -> Iterator[Row]:
    for line in file.lines():
        label, text = line.split("\t", 1)
        yield {"sms": text, "label": ("ham", "spam").index(label)}


RECIPES = [
    classification(
        "ade_corpus_v2-classification",
        Raw(read_sentences, train=(f"{ADE}DRUG-AE.rel", f"{ADE}ADE-NEG.txt")),
        Hub(ADE_HUB, "Ade_corpus_v2_classification"),
        splits=("train",),
        input="{text}",
        output=word("label", "Not Related", "Related"),
    ),
    text_to_text(
        "ade_corpus_v2-dosage",
        Raw(cells("|", quoted=False, text=1, dosage=2, drug=5), train=f"{ADE}DRUG-DOSE.rel"),
        Hub(ADE_HUB, "Ade_corpus_v2_drug_dosage_relation"),
        splits=("train",),
        input="{text} [SEP] {drug}",
        output="{dosage}",
    ),
    text_to_text(
        "ade_corpus_v2-effect",
        Raw(cells("|", quoted=False, text=1, effect=2, drug=5), train=f"{ADE}DRUG-AE.rel"),
        Hub(ADE_HUB, "Ade_corpus_v2_drug_ade_relation"),
        splits=("train",),
        input="{text} [SEP] {drug}",
        output="{effect}",
    ),
    classification(
        "ag_news",
        Raw(read_ag_news, train=f"{AG_NEWS}train.csv", test=f"{AG_NEWS}test.csv"),
        Hub("fancyzhx/ag_news"),
        splits=("train", "test"),
        input="{text}",
        output=word("label", "World", "Sports", "Business", "Sci/Tech"),
        terms="non-commercial use",
    ),
    classification(
        "dbpedia_14",
        Hub("fancyzhx/dbpedia_14"),
        splits=("train", "test"),
        split_rule=test_share(0.05),
        input=lambda row: clean(row["content"]),
        output=word("label", *DBPEDIA_CLASSES),
    ),
    classification(
        "onestop_english",
        Raw(read_onestop, train=ONESTOP),
        Hub("iastate/onestop_english"),
        splits=("train",),
        input=lambda row: no_line_feeds(row["text"]).removeprefix("Intermediate  "),
        output=word("label", "elementary", "intermediate", "advance"),
    ),
    classification("scicite", Hub("allenai/scicite"), input=citation, output=word("label", *INTENTS)),
    classification(
        "sms_spam",
        Raw(read_sms, train=SMS),
        Hub("ucirvine/sms_spam"),
        splits=("train",),
        input=lambda row: row["sms"].strip(),
        output=word("label", "ham", "spam"),
    ),
    classification(
        "yahoo_answers_topics",
        Hub("community-datasets/yahoo_answers_topics"),
        splits=("train", "test"),
        input=lambda row: clean(
            "question_title: {question_title} [SEP] question_content: {question_content} "
            "[SEP] best_answer: {best_answer}".format_map(row)
        ),
        output=word("topic", *YAHOO_TOPICS),
        terms="non-commercial research only",
    ),
]
