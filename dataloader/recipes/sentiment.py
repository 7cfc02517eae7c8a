"""Sentiment and emotion: reviews (Zhang et al. 2015, Maas et al. 2011, Pang and Lee 2005, Grano et al. 2017),
dialogues (Chatterjee et al. 2019), tweets (Saravia et al. 2018), poems (Sheng and Uthus 2020), financial
news (Malo et al. 2014); and TweetEval (Barbieri et al. 2020): emotion, offence, sentiment and stance of
tweets.
"""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, cells
from dataloader.building.recipe import Hub, Raw, Recipe, Row, classification, one_split, test_share
from dataloader.building.text import clean, no_escaped_line_feeds, word

GITHUB = "https://raw.githubusercontent.com/"
EMOTIONS = ("sadness", "joy", "love", "anger", "fear", "surprise")
POEMS = f"{GITHUB}google-research-datasets/poem-sentiment/master/data//"
POLARITY = ("negative", "positive")
ROTTEN_TOMATOES = "https://storage.googleapis.com/seldon-datasets/sentence_polarity_v1/rt-polaritydata.tar.gz"
PHRASEBANK = (
    "https://www.researchgate.net/profile/Pekka_Malo/publication/251231364_FinancialPhraseBank-v10/data/"
    "0c96051eee4fb1d56e000000/FinancialPhraseBank-v10.zip!FinancialPhraseBank-v1.0/"
)
TONES = ("negative", "neutral", "positive")
YELP_TERMS = "Yelp's dataset terms of use: academic, non-commercial use; the reviews may not be passed on"


def read_phrasebank(_: str, file: RawFile) -> Iterator[Row]:
    for line in file.lines("iso-8859-1"):
        sentence, label = line.rsplit("@", 1)
        yield {"sentence": sentence, "label": TONES.index(label.strip())}


def read_imdb(split: str, archive: RawFile) -> Iterator[Row]:
    """Yields the positive reviews and then the negative ones; each has a file of its own."""
    for label, folder in ((1, "pos"), (0, "neg")):
        for file in archive.members(f"aclImdb/{split}/{folder}/"):
            yield {"text": file.text(), "label": label}


# The file's labels -1, 0, 1, 2 are negative, no impact, positive, mixed.
read_poems = cells("\t", ("-1", "1", "0", "2"), quoted=False, verse_text=1, label=2)


def read_rotten_tomatoes(split: str, positive: RawFile, negative: RawFile) -> Iterator[Row]:
    """Yields the first 80 % of both files for the training split, and the next 10 % for validation."""
    for label, file in ((1, positive), (0, negative)):
        lines = file.lines("latin-1")
        bounds = [int(share * len(lines) + 0.5) for share in (0, 0.8, 0.9)]
        start = ("train", "validation").index(split)
        for line in lines[bounds[start] : bounds[start + 1]]:
            yield {"text": line.strip(), "label": label}


TWEET_EVAL = "https://raw.githubusercontent.com/cardiffnlp/tweeteval/main/datasets/"
# fmt: off
EMOJI = ("❤", "😍", "😂", "💕", "🔥", "😊", "😎", "✨", "💙", "😘",
         "📷", "🇺🇸", "☀", "💜", "😉", "💯", "😁", "🎄", "📸", "😜")
# fmt: on
STANCE = ("none", "against", "favor")
TWEET_LABELS = {
    "emoji": EMOJI,
    "emotion": ("anger", "joy", "optimism", "sadness"),
    "hate": ("non-hate", "hate"),
    "irony": ("non-irony", "irony"),
    "offensive": ("non-offensive", "offensive"),
    "sentiment": ("negative", "neutral", "positive"),
    **{f"stance_{topic}": STANCE for topic in ("abortion", "atheism", "climate", "feminist", "hillary")},
}


def read_tweets(_: str, texts: RawFile, labels: RawFile) -> Iterator[Row]:
    for text, label in zip(texts.lines(), labels.lines(), strict=True):
        yield {"text": text.strip(), "label": int(label)}


def tweets(config: str, words: tuple[str, ...]) -> Recipe:
    folder = TWEET_EVAL + config.replace("_", "/")
    urls = {
        split: (f"{folder}/{name}_text.txt", f"{folder}/{name}_labels.txt")
        for split, name in (("train", "train"), ("validation", "val"))
    }
    return classification(
        f"tweet_eval-{config}",
        Raw(read_tweets, **urls),
        Hub("cardiffnlp/tweet_eval", config),
        keep=lambda row: clean(row["text"]) != "",
        input=lambda row: clean(row["text"]),
        output=word("label", *words),
    )


RECIPES = [
    classification(
        "amazon_polarity",
        Hub("fancyzhx/amazon_polarity"),
        splits=("train",),
        split_rule=one_split(lambda n: slice(10_000), lambda n: slice(10_000, 11_000)),
        input="title: {title} [SEP] content: {content}",
        output=word("label", *POLARITY),
    ),
    classification(
        "app_reviews",
        Hub("sealuzh/app_reviews"),
        splits=("train",),
        input="review: {review}",
        output="{star}",
    ),
    classification(
        "emo",
        Hub("SemEvalWorkshop/emo"),
        splits=("train", "test"),
        input=lambda row: row["text"].strip(),
        output=word("label", "others", "happy", "sad", "angry"),
    ),
    classification(
        "emotion",
        Hub("dair-ai/emotion", "split"),
        Raw(
            cells(";", EMOTIONS, text=0, label=1),
            train="https://www.dropbox.com/s/1pzkadrvffbqw6o/train.txt?dl=1",
            validation="https://www.dropbox.com/s/2mzialpsgf9k5l3/val.txt?dl=1",
        ),
        input=lambda row: row["text"].strip(),
        output=word("label", *EMOTIONS),
        terms="education and research only",
    ),
    classification(
        "financial_phrasebank",
        Hub("takala/financial_phrasebank", "sentences_allagree"),
        Raw(read_phrasebank, train=f"{PHRASEBANK}Sentences_AllAgree.txt"),
        splits=("train",),
        input="{sentence}",
        output=word("label", *TONES),
        terms="CC BY-NC-SA 3.0: non-commercial use",
    ),
    classification(
        "imdb",
        Raw(read_imdb, every="http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"),
        Hub("stanfordnlp/imdb"),  # its rows have another order than in 2021
        splits=("train", "test"),
        input=lambda row: clean(row["text"]),
        output=word("label", *POLARITY),
    ),
    classification(
        "poem_sentiment",
        Raw(read_poems, train=f"{POEMS}train.tsv", validation=f"{POEMS}dev.tsv"),
        Hub("google-research-datasets/poem_sentiment"),
        input="{verse_text}",
        output=word("label", "negative", "positive", "no_impact", "mixed"),
    ),
    classification(
        "rotten_tomatoes",
        Raw(
            read_rotten_tomatoes,
            every=tuple(f"{ROTTEN_TOMATOES}!rt-polaritydata/rt-polarity.{sign}" for sign in ("pos", "neg")),
        ),
        Hub("cornell-movie-review-data/rotten_tomatoes"),
        input="{text}",
        output=word("label", *POLARITY),
    ),
    classification(
        "yelp_polarity",
        Hub("fancyzhx/yelp_polarity"),
        splits=("train", "test"),
        split_rule=test_share(0.2),
        input=lambda row: no_escaped_line_feeds(row["text"]),
        output=word("label", *POLARITY),
        terms=YELP_TERMS,
    ),
    classification(
        "yelp_review_full",
        Hub("Yelp/yelp_review_full"),
        splits=("train", "test"),
        input=lambda row: no_escaped_line_feeds(row["text"]),
        output=word("label", "1", "2", "3", "4", "5"),
        terms=YELP_TERMS,
    ),
    *(tweets(config, words) for config, words in TWEET_LABELS.items()),
]
