"""The skills: each function draws one random `Problem` from a vocabulary, for a given format.

The name of a function lists the skills that its problems need: `sentiment_negation` combines two skills. All
texts are lower case and short, with spaces around full stops, so that every word is one token of the tiny
tokenizer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from task.skill_gym.world import COLOURS, NUMBERS, OPPOSITES, PEOPLE, VERBS, Fact, Vocabulary, plural

# ---- formats: the six surface formats that turn a problem into a row of a task

# A skill can be combined with any format whose parts it fills in: unseen tasks are new combinations of seen
# skills and seen formats.

GAP = "[BLANK]"


@dataclass(frozen=True)
class Problem:
    """One question with its answer, before it is formatted; parts that a skill does not need are empty.

    `answers` are the accepted answers, the first one is the training target; `wrong` are the other options
    of a multiple-choice question. `cloze` is a sentence with a gap, `statement` the second text of a pair,
    `command` the instruction for the context.
    """

    answers: tuple[str, ...]
    context: str = ""
    question: str = ""
    statement: str = ""
    cloze: str = ""
    command: str = ""
    wrong: tuple[str, ...] = ()


def labels(problem: Problem, rng: random.Random) -> str:
    """`<text>`, or `premise: <text> hypothesis: <text>`; the answer is a label word."""
    if problem.context and problem.statement:
        return f"premise: {problem.context} hypothesis: {problem.statement}"
    return problem.context or problem.statement


def pair(problem: Problem, rng: random.Random) -> str:
    """`<text> [SEP] <text>`; the answer is a label word for the relation of the two texts."""
    return f"{problem.context} [SEP] {problem.statement}"


def qa(problem: Problem, rng: random.Random) -> str:
    """`question: <question> context: <text>`, without the second part if the problem has no context."""
    question = f"question: {problem.question}"
    return f"{question} context: {problem.context}" if problem.context else question


def choice(problem: Problem, rng: random.Random) -> str:
    """`<text> <question> (A) <option> (B) <option> ..`; the answer is the text of the correct option."""
    options = [problem.answers[0], *problem.wrong]
    rng.shuffle(options)
    lettered = " ".join(f"({letter}) {option}" for letter, option in zip("ABCDEF", options, strict=False))
    return " ".join(part for part in (problem.context, problem.question, lettered) if part)


def fill(problem: Problem, rng: random.Random) -> str:
    """`<text> <sentence with a [BLANK]>`; the answer is the text that fills the blank."""
    return " ".join(part for part in (problem.context, problem.cloze) if part)


def command(problem: Problem, rng: random.Random) -> str:
    """`<instruction> : <text>`; the answer is the result of the instruction."""
    return f"{problem.command} : {problem.context}"


FORMATS: dict[str, Callable[[Problem, random.Random], str]] = {
    "labels": labels,
    "pair": pair,
    "qa": qa,
    "choice": choice,
    "fill": fill,
    "command": command,
}


# ---- parts of problems

SENTIMENT_OPTIONS = (("good", "bad"), ("praise", "blame"), ("glad", "sad"))
OPPOSITE_OF = {word: other for both in OPPOSITES for word, other in (both, both[::-1])}
ADJECTIVES = tuple(sorted(OPPOSITE_OF))


# ----------------------------------------------------------------------------------------- sentiment


def _praise(rng: random.Random, vocabulary: Vocabulary, positive: bool, negated: bool = False) -> str:
    """An opinion of the given polarity: `tasty`, or, if negated, `not awful`."""
    word = rng.choice(vocabulary.good if positive != negated else vocabulary.bad)
    return f"not {word}" if negated else word


def _review(rng: random.Random, vocabulary: Vocabulary, opinions: list[str]) -> str:
    person, thing, place = rng.choice(PEOPLE), rng.choice(vocabulary.things), rng.choice(vocabulary.places)
    opening = rng.choice(
        [f"{person} saw the {thing} near the {place} .", f"{person} was near the {place} with the {thing} ."]
    )
    return f"{opening} it was {' and '.join(opinions)} ."


def _sentiment_words(rng: random.Random, form: str) -> tuple[str, str]:
    return rng.choice(SENTIMENT_OPTIONS) if form == "choice" else ("positive", "negative")


def sentiment(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """A short review with two opinions of one polarity."""
    positive = rng.random() < 0.5
    review = _review(rng, vocabulary, [_praise(rng, vocabulary, positive) for _ in range(2)])
    right, wrong = _sentiment_words(rng, form)[:: 1 if positive else -1]
    return Problem((right,), context=review, question="how was it ?", wrong=(wrong,))


def sentiment_negation(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """A short review with two opinions of one polarity, each of them negated with probability 1/2."""
    positive = rng.random() < 0.5
    opinions = [_praise(rng, vocabulary, positive, negated=rng.random() < 0.5) for _ in range(2)]
    right, wrong = _sentiment_words(rng, form)[:: 1 if positive else -1]
    return Problem(
        (right,), context=_review(rng, vocabulary, opinions), question="how was it ?", wrong=(wrong,)
    )


def sentiment_comparison(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Two opinions of opposite polarity about two things: which of the things is better?"""
    first_is_better = rng.random() < 0.5
    opinions = [_praise(rng, vocabulary, positive) for positive in (first_is_better, not first_is_better)]
    texts = []
    for thing, opinion in zip(rng.sample(vocabulary.things, 2), opinions, strict=True):
        texts.append(f"{rng.choice(PEOPLE)} says the {thing} is {opinion}")
    answer = "first" if first_is_better else "second"
    return Problem((answer,), context=texts[0], statement=texts[1], question="which is better ?")


# ---------------------------------------------------------------------------------------- entailment


def _claim_about_a_place(rng: random.Random, vocabulary: Vocabulary) -> tuple[str, str, str, str]:
    """A premise that says where a person is: (premise, person, place, another place)."""
    person, (place, elsewhere) = rng.choice(PEOPLE), rng.sample(vocabulary.places, 2)
    return (
        f"{person} is near the {place} with the {rng.choice(vocabulary.things)} .",
        person,
        place,
        elsewhere,
    )


def entailment(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """A premise that says where a person is, and a claim about it; the claim is about someone else for
    `maybe`.
    """
    premise, person, place, elsewhere = _claim_about_a_place(rng, vocabulary)
    relation = rng.randrange(3 if form == "labels" else 2)
    who = rng.choice([p for p in PEOPLE if p != person]) if relation == 2 else person
    where = elsewhere if relation == 1 else place
    answer = ("entailment", "contradiction") if form == "pair" else ("yes", "no", "maybe")
    return Problem(
        (answer[relation],),
        context=premise,
        statement=f"{who} is near the {where} .",
        question=f"is {who} near the {where} ?",
    )


def entailment_negation(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """As `entailment`, but the claim is negated with probability 1/2."""
    premise, person, place, elsewhere = _claim_about_a_place(rng, vocabulary)
    negated, holds = rng.random() < 0.5, rng.random() < 0.5
    where = place if holds != negated else elsewhere
    answer = ("entailment", "contradiction") if form == "pair" else ("yes", "no")
    statement = f"{person} is {'not ' if negated else ''}near the {where} ."
    return Problem((answer[not holds],), context=premise, statement=statement)


# ---------------------------------------------------------------------------------------- extraction


def extraction(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Two people with one thing each: what does one of them have? As a command: find the colour word."""
    people, things = rng.sample(PEOPLE, 2), rng.sample(vocabulary.things, 3)
    i = rng.randrange(2)
    if form == "command":
        colour, adjective = rng.choice(COLOURS), rng.choice(ADJECTIVES)
        described = rng.choice(
            [f"{adjective} {colour} {things[0]}", f"{colour} {things[0]} and the {adjective} {things[1]}"]
        )
        text = f"{people[0]} has the {described} near the {rng.choice(vocabulary.places)} ."
        return Problem((colour,), context=text, command="name the colour")
    text = " ".join(f"{who} has the {what} ." for who, what in zip(people, things[:2], strict=True))
    answers = (things[i], f"the {things[i]}") if form == "qa" else (things[i],)
    return Problem(
        answers,
        context=text,
        question=f"what does {people[i]} have ?",
        cloze=f"so {people[i]} has the {GAP} .",
        wrong=tuple(thing for thing in things if thing != things[i]),
    )


# -------------------------------------------------------------------------------------------- lookup


def lookup(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """A question about a fact of the world, or, as `labels`, a true or false claim about it.

    There is no context: the answer must be known from pre-training.
    """
    fact, person = rng.choice(vocabulary.facts), rng.choice(PEOPLE)
    wrong = tuple(rng.sample(fact.wrong_values(), 2))
    if form == "labels":
        return _claim(rng, fact, person, wrong[0])
    says = rng.choice(["says", "knows", "thinks", "hears"])
    asks = rng.choice(["asks", "wonders", "wants to know", "asks you"])
    return Problem(
        (fact.value,),
        question=f"{person} {asks} : {fact.question} ?",
        cloze=f"{person} {says} that {fact.statement(GAP)} .",
        wrong=wrong,
    )


def _claim(rng: random.Random, fact: Fact, person: str, wrong: str) -> Problem:
    right = rng.random() < 0.5
    says = rng.choice(["says", "thinks", "hears", "claims"])
    statement = f"{person} {says} that {fact.statement() if right else fact.statement(wrong)} ."
    return Problem(("true" if right else "false",), statement=statement)


# --------------------------------------------------------------------------- counting and comparison


def counting(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Count the things of one type in a list of two types. As a command: count all things, in digits."""
    if form == "command":
        things = rng.choices(vocabulary.things, k=rng.randint(3, 7))
        return Problem((str(len(things)),), context=" ".join(things), command="count")
    (kind, other), count = rng.sample(vocabulary.things, 2), rng.randint(1, 4)
    things = [kind] * count + [other] * rng.randint(1, 3)
    rng.shuffle(things)
    wrong = [number for number in NUMBERS[1:5] if number != NUMBERS[count]]
    return Problem(
        (NUMBERS[count],),
        context=f"{rng.choice(PEOPLE)} has {' '.join(things)} .",
        question=f"how many {plural(kind)} ?",
        wrong=tuple(rng.sample(wrong, 2)),
    )


def comparison(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Two things with a number of coins each: which has more?"""
    things, numbers = rng.sample(vocabulary.things, 2), rng.sample(range(1, 10), 2)
    text = " ".join(f"the {thing} has {NUMBERS[n]} coins ." for thing, n in zip(things, numbers, strict=True))
    i = numbers.index(max(numbers))
    return Problem((things[i],), context=text, question="which has more ?", wrong=(things[1 - i],))


def counting_comparison(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Two people with a list of things each: does the first or the second have more?"""
    counts = rng.sample(range(1, 6), 2)
    texts = []
    for person, count in zip(rng.sample(PEOPLE, 2), counts, strict=True):
        texts.append(f"{person} has {' '.join(rng.choices(vocabulary.things, k=count))}")
    answer = "first" if counts[0] > counts[1] else "second"
    return Problem((answer,), context=texts[0], statement=texts[1])


# ----------------------------------------------------------------------------------------- rewriting


def _list_of_things(rng: random.Random, vocabulary: Vocabulary) -> list[str]:
    return rng.sample(vocabulary.things, rng.randint(3, 4))


def reversal(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Reverse a list of words."""
    things = [rng.choice(PEOPLE), *_list_of_things(rng, vocabulary)]
    answer = " ".join(reversed(things))
    return Problem((answer,), context=" ".join(things), command="reverse", question="what is it backwards ?")


def swap(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Swap the first and the last word of a list."""
    things = [rng.choice(PEOPLE), *_list_of_things(rng, vocabulary)]
    answer = " ".join([things[-1], *things[1:-1], things[0]])
    return Problem(
        (answer,),
        context=" ".join(things),
        command="swap the ends",
        question="what is it with ends swapped ?",
    )


def inflection(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Rewrite a sentence in the present tense in the past tense."""
    present, past = rng.choice(VERBS)
    person, thing, place = rng.choice(PEOPLE), rng.choice(vocabulary.things), rng.choice(vocabulary.places)
    sentence = f"{person} {{}} to the {place} with the {thing}"
    return Problem(
        (sentence.format(past),),
        context=sentence.format(present),
        command="past tense",
        question="what was yesterday ?",
    )


def opposite(rng: random.Random, vocabulary: Vocabulary, form: str) -> Problem:
    """Replace each adjective of a sentence by its opposite."""
    first, second = rng.sample(ADJECTIVES, 2)
    person, thing = rng.choice(PEOPLE), rng.choice(vocabulary.things)
    sentence = f"{person} has the {{}} {{}} {thing}"
    return Problem(
        (sentence.format(OPPOSITE_OF[first], OPPOSITE_OF[second]),),
        context=sentence.format(first, second),
        command="opposite",
        question="what is the opposite ?",
    )


PROBLEMS: dict[tuple[str, ...], Callable[[random.Random, Vocabulary, str], Problem]] = {
    ("sentiment",): sentiment,
    ("sentiment", "negation"): sentiment_negation,
    ("sentiment", "comparison"): sentiment_comparison,
    ("entailment",): entailment,
    ("entailment", "negation"): entailment_negation,
    ("extraction",): extraction,
    ("lookup",): lookup,
    ("counting",): counting,
    ("comparison",): comparison,
    ("counting", "comparison"): counting_comparison,
    ("reversal",): reversal,
    ("swap",): swap,
    ("inflection",): inflection,
    ("opposite",): opposite,
}
