"""The invented world: its people, its four vocabularies and its facts.

Everything here is fixed and does not depend on the seed of the gym: the tiny BART was pre-trained on these
facts, and could not answer questions about others. A vocabulary is one domain (food, travel, shop, farm)
with its own things, places, positive and negative adjectives, and 24 invented entities with two facts each.
"""

import random
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PEOPLE = _words(
    "mila tom anna omar lena hugo ivy raj nora sam zoe finn "
    "ada leo maya kurt ella noah rosa ben lucy max tara joe"
)
NUMBERS = _words("zero one two three four five six seven eight nine ten")
COLOURS = _words("red blue green yellow black white pink brown")
GOOD = _words("good great lovely wonderful fine superb zorvy mellish")
BAD = _words("bad awful terrible poor horrid nasty grubbish skarny")
OPPOSITES = (
    ("big", "small"),
    ("old", "new"),
    ("long", "short"),
    ("heavy", "light"),
    ("hard", "soft"),
    ("thick", "thin"),
    ("fast", "slow"),
    ("full", "empty"),
)
VERBS = (  # present, past
    ("walks", "walked"),
    ("runs", "ran"),
    ("goes", "went"),
    ("comes", "came"),
    ("jumps", "jumped"),
    ("rides", "rode"),
    ("moves", "moved"),
    ("hurries", "hurried"),
)


@dataclass(frozen=True)
class Relation:
    """A relation between entities and values. `statement` has the fields {entity} and {value}, `question`
    only {entity}.
    """

    statement: str
    question: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A true statement of the world: the value of a relation for an entity."""

    relation: Relation
    entity: str
    value: str

    @property
    def question(self) -> str:
        return self.relation.question.format(entity=self.entity)

    def statement(self, value: str | None = None) -> str:
        """The fact as a sentence; another `value` makes it a false statement or a cloze."""
        return self.relation.statement.format(entity=self.entity, value=value or self.value)

    def wrong_values(self) -> list[str]:
        return [value for value in self.relation.values if value != self.value]


@dataclass(frozen=True)
class Vocabulary:
    """The words of one domain. `facts` holds both facts of every invented entity."""

    name: str
    things: tuple[str, ...]
    places: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    facts: tuple[Fact, ...]


def plural(thing: str) -> str:
    """The plural of a thing; all things of the world have a regular plural."""
    return thing + "s"


def _invent_names(rng: random.Random, count: int, ending: str, taken: set[str]) -> tuple[str, ...]:
    """`count` new two-syllable words with a common ending that are not in `taken`; adds them to `taken`."""
    names = []
    while len(names) < count:
        name = rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") + rng.choice("bdgklmnprstvz") + ending
        if name not in taken:
            taken.add(name)
            names.append(name)
    return tuple(names)


def _facts(
    rng: random.Random, entities: tuple[str, ...], relations: tuple[Relation, ...]
) -> tuple[Fact, ...]:
    """One random fact per entity and relation; all values of a relation are used equally often."""
    facts = []
    for relation in relations:
        values = [relation.values[i % len(relation.values)] for i in range(len(entities))]
        rng.shuffle(values)
        facts += [Fact(relation, entity, value) for entity, value in zip(entities, values, strict=True)]
    return tuple(facts)


def _build_vocabularies() -> dict[str, Vocabulary]:
    rng, taken = random.Random("the invented world"), set(PEOPLE)
    towns = _invent_names(rng, 24, "vale", taken)
    dishes, lands, gadgets, beasts = (
        _invent_names(rng, 24, end, taken) for end in ("osh", "land", "ix", "ump")
    )
    relations = {
        "food": (
            Relation("the {entity} comes from {value}", "where does the {entity} come from", towns[:8]),
            Relation(
                "the {entity} tastes {value}",
                "how does the {entity} taste",
                _words("sweet sour salty bitter spicy mild creamy smoky"),
            ),
        ),
        "travel": (
            Relation("the capital of {entity} is {value}", "what is the capital of {entity}", towns),
            Relation(
                "the weather in {entity} is {value}",
                "how is the weather in {entity}",
                _words("hot cold wet dry windy foggy snowy stormy"),
            ),
        ),
        "shop": (
            Relation("the colour of the {entity} is {value}", "what colour is the {entity}", COLOURS),
            Relation(
                "the {entity} is made of {value}",
                "what is the {entity} made of",
                _words("wood glass iron clay paper wool stone gold"),
            ),
        ),
        "farm": (
            Relation(
                "the {entity} eats {value}",
                "what does the {entity} eat",
                _words("grain grass leaves worms fish moss seeds roots"),
            ),
            Relation(
                "the {entity} sleeps in the {value}",
                "where does the {entity} sleep",
                _words("nest cave burrow den hive attic shed reeds"),
            ),
        ),
    }
    entities = {"food": dishes, "travel": lands, "shop": gadgets, "farm": beasts}
    words = {  # things; places; positive adjectives; negative adjectives
        "food": (
            "cake pie bun plum pear nut egg fig bean roll",
            "kitchen cafe cellar garden bakery larder",
            "tasty fresh delicious crisp",
            "stale burnt rotten soggy",
        ),
        "travel": (
            "train boat cart bike car plane tram ship truck sled",
            "harbour station bridge beach hotel road",
            "comfortable punctual scenic clean",
            "late crowded dirty noisy",
        ),
        "shop": (
            "lamp chair table clock book ring hat coat pen cup",
            "shelf window counter drawer basket cabinet",
            "handy shiny sturdy elegant",
            "broken flimsy rusty ugly",
        ),
        "farm": (
            "hen cow pig goat horse duck dog cat lamb frog",
            "barn field yard stable meadow orchard",
            "gentle clever healthy friendly",
            "mean smelly lazy sick",
        ),
    }
    vocabularies = {}
    for name, columns in words.items():
        things, places, good, bad = map(_words, columns)
        facts = _facts(rng, entities[name], relations[name])
        vocabularies[name] = Vocabulary(name, things, places, GOOD + good, BAD + bad, facts)
    return vocabularies


VOCABULARIES = _build_vocabularies()
