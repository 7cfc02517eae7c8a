"""One sentence per task of the gym that says what it asks for, input of `task.task_emb.descriptions`.

The sentences are written as by a reader of a few rows of the task who does not know the table of skills.
"""

DESCRIPTIONS: dict[str, str] = {
    # train
    "sentiment-food-labels": (
        "Read a short review of something to eat and say whether it is positive or negative."
    ),
    "sentiment-travel-choice": (
        "Read what someone thought of a vehicle they met on the way and pick the word, such as praise or "
        "blame, that fits their opinion."
    ),
    "sentiment-negation-shop-labels": (
        "Say whether a remark about an article in a shop is positive or negative; not ugly, for instance, is "
        "a compliment and not handy a complaint."
    ),
    "sentiment-comparison-farm-pair": (
        "Two people each give an opinion of an animal; answer first or second for the animal that comes "
        "off better."
    ),
    "entailment-food-pair": (
        "Someone is said to be in a kitchen, bakery or cellar with some food; tell whether a claim about "
        "where they are follows (entailment) or clashes (contradiction)."
    ),
    "entailment-travel-labels": (
        "Given where a traveller is, judge a statement that somebody is at the station, beach or bridge: "
        "yes, no, or maybe when it is about another person."
    ),
    "entailment-negation-shop-pair": (
        "Someone stands at a shelf or counter in a shop; decide between entailment and contradiction for a "
        "second sentence that says where they are or are not."
    ),
    "entailment-farm-qa": (
        "Answer yes or no to a question whether a person is at the barn, field or stable, from a sentence "
        "that tells where they are."
    ),
    "extraction-farm-qa": (
        "Two people each have an animal; answer the question which animal one of them has, such as a hen "
        "or a horse."
    ),
    "extraction-food-fill": (
        "Read who has which food and complete the last sentence by writing in the blank what that person "
        "has, such as a pear or a bun."
    ),
    "extraction-travel-choice": (
        "Read which vehicle each of two people has and choose from three lettered options the one that the "
        "person asked about has."
    ),
    "extraction-shop-command": (
        "Find the colour word in a sentence about the goods that someone has in a shop and write only that "
        "colour."
    ),
    "lookup-travel-qa": (
        "Answer from memory a question on an invented country, what its capital is called or what its "
        "weather is like, with nothing to read."
    ),
    "lookup-farm-fill": (
        "Fill the blank in a sentence about an imaginary animal, what it eats or where it sleeps, from "
        "what you know of it."
    ),
    "lookup-shop-choice": (
        "Someone asks what colour a made-up product is or what it is made of; choose the right one of "
        "three options by heart."
    ),
    "lookup-food-labels": (
        "Someone claims how an imaginary food tastes or which town it comes from; say whether this is true "
        "or false by what you have learnt."
    ),
    "counting-farm-qa": (
        "Count how many animals of one kind appear in a list of two kinds that someone owns and write the "
        "number as a word."
    ),
    "counting-food-command": (
        "Count all the foods in a list, repeats included, and write how many there are as a digit."
    ),
    "comparison-shop-choice": (
        "Two articles of a shop have different numbers of coins, written as words; choose from two options "
        "the one with more."
    ),
    "counting-comparison-travel-pair": (
        "Two people each own a row of vehicles; say whether the first or the second person owns more of them."
    ),
    "reversal-food-command": (
        "Write a name followed by several foods in the opposite order, from the last word back to the first."
    ),
    "swap-travel-command": (
        "Exchange the first and the last word of a line with a name and some vehicles, leaving those "
        "between where they are."
    ),
    "inflection-farm-command": (
        "Rewrite a sentence about someone going somewhere on the farm with an animal in the past tense."
    ),
    "opposite-shop-qa": (
        "Replace both adjectives of a thing from a shop by words of opposite meaning, like big for small, "
        "and repeat the rest of the sentence."
    ),
    # dev
    "entailment-food-qa": (
        "Answer yes or no whether a person is in a place such as the kitchen, cafe or garden, given a "
        "sentence that says where they are with some food."
    ),
    "extraction-travel-fill": (
        "After reading who has which vehicle, put into the blank of the closing sentence the vehicle of "
        "the person it names, such as a tram or a ship."
    ),
    "lookup-shop-fill": (
        "Complete from memory a sentence on an imaginary product by writing its colour or its material "
        "where the blank is."
    ),
    "comparison-farm-choice": (
        "Two animals have some coins each, given as number words; pick from two options the animal that "
        "has more."
    ),
    # test
    "sentiment-farm-choice": (
        "Read what someone found an animal to be like and pick which of two words, such as glad or sad, "
        "goes with the opinion."
    ),
    "sentiment-negation-food-labels": (
        "Tell whether an opinion of some food is positive or negative, taking into account that a not "
        "before a word turns it round, as in not stale."
    ),
    "entailment-shop-labels": (
        "Given where in a shop a person is, say whether a second statement about who is near the shelf or "
        "window holds: yes, no or maybe."
    ),
    "extraction-shop-qa": (
        "From two sentences on who has what, such as a lamp or a coat, answer the question what one of the "
        "two people has."
    ),
    "lookup-farm-choice": (
        "Choose among three options what an imaginary animal eats or where it sleeps, a fact to be known "
        "rather than read."
    ),
    "counting-shop-qa": (
        "Someone has a jumble of two sorts of household goods; answer with a number word how many there "
        "are of one sort."
    ),
    "swap-food-command": (
        "Make the first and last word of a line trade places, a name at one end and a food at the other, "
        "and keep the middle as it is."
    ),
    "inflection-travel-qa": (
        "Say what happened yesterday: turn a sentence about a trip with a vehicle, to the beach or the "
        "hotel, from present to past tense."
    ),
}
