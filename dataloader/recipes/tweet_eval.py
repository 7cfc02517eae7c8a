"""TweetEval (Barbieri et al. 2020): emotion, offence, sentiment and stance of tweets."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile
from dataloader.building.recipe import Hub, Raw, Recipe, Row, classification
from dataloader.building.text import clean, word

FILES = "https://raw.githubusercontent.com/cardiffnlp/tweeteval/main/datasets/"
# fmt: off
EMOJI = ("❤", "😍", "😂", "💕", "🔥", "😊", "😎", "✨", "💙", "😘",
         "📷", "🇺🇸", "☀", "💜", "😉", "💯", "😁", "🎄", "📸", "😜")
# fmt: on
STANCE = ("none", "against", "favor")
LABELS = {
    "emoji": EMOJI,
    "emotion": ("anger", "joy", "optimism", "sadness"),
    "hate": ("non-hate", "hate"),
    "irony": ("non-irony", "irony"),
    "offensive": ("non-offensive", "offensive"),
    "sentiment": ("negative", "neutral", "positive"),
    **{f"stance_{topic}": STANCE for topic in ("abortion", "atheism", "climate", "feminist", "hillary")},
}


def read(_: str, texts: RawFile, labels: RawFile) -> Iterator[Row]:
    for text, label in zip(texts.lines(), labels.lines(), strict=True):
        yield {"text": text.strip(), "label": int(label)}


def tweets(config: str, words: tuple[str, ...]) -> Recipe:
    folder = FILES + config.replace("_", "/")
    urls = {
        split: (f"{folder}/{name}_text.txt", f"{folder}/{name}_labels.txt")
        for split, name in (("train", "train"), ("validation", "val"))
    }
    return classification(
        f"tweet_eval-{config}",
        Raw(read, **urls),
        Hub("cardiffnlp/tweet_eval", config),
        keep=lambda row: clean(row["text"]) != "",
        input=lambda row: clean(row["text"]),
        output=word("label", *words),
    )


RECIPES = [tweets(config, words) for config, words in LABELS.items()]
