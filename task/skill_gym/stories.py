"""Raw text about the invented world, on which the tiny BART is pre-trained.

    document(rng) -> "mila has the cake . tom has the pie . tom has the pie , so the pie is with tom ."

Short documents of two to five sentences: reviews, stories, facts, lists, numbers. They use the words and
phrases of the gym and state the facts of the world, but contain no row of the gym.
"""

import random

from task.skill_gym.skills import ADJECTIVES, OPPOSITE_OF
from task.skill_gym.world import COLOURS, NUMBERS, PEOPLE, VERBS, VOCABULARIES, Vocabulary, plural


def review(rng: random.Random, vocabulary: Vocabulary) -> str:
    """Opinions of one polarity about several things, and the polarity in words."""
    person, glad = rng.choice(PEOPLE), rng.random() < 0.5
    praise, blame = (vocabulary.good, vocabulary.bad) if glad else (vocabulary.bad, vocabulary.good)
    sentences = [f"{person} was near the {rng.choice(vocabulary.places)} ."]
    for thing in rng.sample(vocabulary.things, rng.randint(2, 3)):
        opinions = [
            f"not {rng.choice(blame)}" if rng.random() < 0.3 else rng.choice(praise) for _ in range(2)
        ]
        sentences.append(f"the {thing} was {' and '.join(opinions)} .")
    feeling = ("glad and full of praise", "positive") if glad else ("sad and full of blame", "negative")
    sentences.append(f"{person} was {feeling[0]} , so the review is {feeling[1]} .")
    return " ".join(sentences)


def whereabouts(rng: random.Random, vocabulary: Vocabulary) -> str:
    """Where two people are, with questions and statements about it."""
    people, (*places, elsewhere) = rng.sample(PEOPLE, 2), rng.sample(vocabulary.places, 3)
    sentences = [f"{who} is near the {place} ." for who, place in zip(people, places, strict=True)]
    for i in rng.sample(range(2), 2):
        who, place, wrong = people[i], places[i], rng.choice([places[1 - i], elsewhere])
        again = [
            f"where is {who} ? {who} is near the {place} .",
            f"is {who} near the {place} ? yes , near the {place} .",
            f"is {who} near the {wrong} ? no , near the {place} .",
            f"so {who} is not near the {wrong} , {who} is near the {place} .",
        ]
        sentences.append(rng.choice(again))
    return " ".join(sentences)


def belongings(rng: random.Random, vocabulary: Vocabulary) -> str:
    """What each person has, stated twice in different words and orders."""
    count = rng.randint(2, 3)
    pairs = list(zip(rng.sample(PEOPLE, count), rng.sample(vocabulary.things, count), strict=True))
    sentences = []
    for who, what in pairs:
        details = rng.choice(["", "", f"{rng.choice(ADJECTIVES)} ", f"{rng.choice(COLOURS)} "])
        sentences.append(f"{who} has the {details}{what} .")
    for who, what in rng.sample(pairs, count):
        again = [
            f"who has the {what} ? {who} has the {what} .",
            f"so {who} has the {what} .",
            f"the {what} is with {who} .",
        ]
        sentences.append(rng.choice(again))
    return " ".join(sentences)


def facts(rng: random.Random, vocabulary: Vocabulary) -> str:
    """Three facts of the world, as statements or in short dialogues."""
    sentences = []
    for fact in rng.sample(vocabulary.facts, 3):
        person, other = rng.sample(PEOPLE, 2)
        wrong = rng.choice(fact.wrong_values())
        sentences.append(
            rng.choice(
                [
                    f"{fact.statement()} .",
                    f"{person} knows that {fact.statement()} .",
                    f"{person} asks {other} : {fact.question} ? {fact.value} , says {other} .",
                    f"it is true that {fact.statement()} .",
                    f"it is not true that {fact.statement(wrong)} , {fact.statement()} .",
                ]
            )
        )
    return " ".join(sentences)


def counts(rng: random.Random, vocabulary: Vocabulary) -> str:
    """A list of things of two types, with the number of each type and the total."""
    person, (kind, other) = rng.choice(PEOPLE), rng.sample(vocabulary.things, 2)
    many, few = rng.randint(1, 4), rng.randint(1, 3)
    things = [kind] * many + [other] * few
    rng.shuffle(things)
    numbers = [
        f"{NUMBERS[n]} {thing if n == 1 else plural(thing)}" for thing, n in ((kind, many), (other, few))
    ]
    return f"{person} has {' '.join(things)} . that is {' and '.join(numbers)} , {many + few} in all ."


def numbers(rng: random.Random, vocabulary: Vocabulary) -> str:
    """Two things with a number of coins each, and which of them has more or fewer."""
    things, (low, high) = rng.sample(vocabulary.things, 2), sorted(rng.sample(range(1, 10), 2))
    more, fewer = rng.sample(things, 2)
    amount = {more: NUMBERS[high], fewer: NUMBERS[low]}
    amounts = " ".join(f"the {thing} has {amount[thing]} coins ." for thing in things)
    again = [
        f"{amount[more]} is more than {amount[fewer]} .",
        f"the {more} has more coins than the {fewer} .",
        f"the {fewer} has fewer coins than the {more} .",
    ]
    return " ".join([amounts, *rng.sample(again, 2)])


def days(rng: random.Random, vocabulary: Vocabulary) -> str:
    """The same trip in the present tense ("today") and in the past tense ("yesterday")."""
    present, past = rng.choice(VERBS)
    rest = f"to the {rng.choice(vocabulary.places)} with the {rng.choice(vocabulary.things)}"
    person = rng.choice(PEOPLE)
    return f"today {person} {present} {rest} . yesterday {person} {past} {rest} ."


def opposites(rng: random.Random, vocabulary: Vocabulary) -> str:
    """A thing with two adjectives, and their opposites."""
    first, second = rng.sample(ADJECTIVES, 2)
    person, thing = rng.choice(PEOPLE), rng.choice(vocabulary.things)
    return (
        f"{person} has the {first} {second} {thing} . it is not {OPPOSITE_OF[first]} , it is {first} . "
        f"{second} is the opposite of {OPPOSITE_OF[second]} ."
    )


def walks(rng: random.Random, vocabulary: Vocabulary) -> str:
    """A list of things in one order, then in reverse order."""
    things = rng.sample(vocabulary.things, rng.randint(3, 5))
    there, back = " ".join(things), " ".join(reversed(things))
    return f"on the way {rng.choice(PEOPLE)} saw {there} . on the way back it was {back} ."


GENRES = {  # genre: its relative frequency
    review: 2,
    whereabouts: 5,
    belongings: 4,
    facts: 4,
    counts: 2,
    numbers: 3,
    days: 2,
    opposites: 2,
    walks: 2,
}


def document(rng: random.Random) -> str:
    """One random document of a random genre, with a random vocabulary."""
    (genre,) = rng.choices(list(GENRES), weights=list(GENRES.values()))
    return genre(rng, rng.choice(list(VOCABULARIES.values())))
