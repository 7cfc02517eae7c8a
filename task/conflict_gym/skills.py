"""The hidden skills: functions from an input, a few words, to an answer, one word.

Skill number a * (decoder parts) + b is composed of the encoder-side part a and the decoder-side part b. Part
a says which position of the input counts (a modulo the words of an input) and has a permutation of all words,
part b has another permutation:

    answer = permutation_b[permutation_a[the word at a's position]]

Some words are *contested*, and an input has only contested words or none. The permutations of two encoder
parts differ on every contested word, and so do those of two decoder parts. On the other words all encoder
parts have the same permutation, all decoder parts too, and the first position counts: all skills are equal.
"""

import random
from dataclasses import dataclass

import numpy as np

from dataloader.errors import InputError
from task.conflict_gym.settings import GymSettings

CONSONANTS, VOWELS, SYLLABLES = "bdfgklmnprstvz", "aeiou", 3
LOWEST_DISAGREEMENT = 0.5  # of two skills on contested inputs
DRAWS = 100


def made_up_words(count: int) -> list[str]:
    """Returns `count` invented words such as "badiko". More words begin with the same ones, for any seed."""
    rng, words = random.Random("made-up words"), {}
    while len(words) < count:
        words["".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(SYLLABLES))] = None
    return list(words)


@dataclass(frozen=True, eq=False)
class Skills:
    """The words, of which the first `contested` are contested, and the permutations of their indices.

    encoder_permutations: (encoder parts, words); decoder_permutations: (decoder parts, words).
    """

    words: tuple[str, ...]
    contested: int
    input_words: int
    encoder_permutations: np.ndarray
    decoder_permutations: np.ndarray

    @property
    def count(self) -> int:
        return len(self.encoder_permutations) * len(self.decoder_permutations)

    def parts(self, skill: int) -> tuple[int, int]:
        """Returns (encoder part, decoder part)."""
        return divmod(skill, len(self.decoder_permutations))

    def answer(self, skill: int, words: tuple[int, ...]) -> int:
        """Returns the answer to an input; words are given by their indices."""
        a, b = self.parts(skill)
        position = a % self.input_words if words[0] < self.contested else 0
        return int(self.decoder_permutations[b][self.encoder_permutations[a][words[position]]])

    def disagreements(self) -> np.ndarray:
        """Returns the share of all contested inputs that two skills answer differently: (skills, skills).

        Skills of the same position disagree on the words that they map to different words. Skills of
        different positions agree on an input (v, w) if w is the one word that the second maps to the answer
        of the first, which is possible unless that is v itself.
        """
        n, skills = self.contested, range(self.count)
        if n == 0:
            return np.zeros((self.count, self.count))
        parts = [self.parts(skill) for skill in skills]
        maps = np.array([self.decoder_permutations[b][self.encoder_permutations[a]][:n] for a, b in parts])
        different = np.array([(maps != maps[skill]).sum(axis=1) for skill in skills])
        position = np.array([a % self.input_words for a, _ in parts])
        same = position[:, None] == position
        return np.where(same, different / n, 1 - different / max(1, n * (n - 1)))


def draw_skills(settings: GymSettings) -> Skills:
    """Returns the skills of a gym. Raises InputError if too few words are contested to keep skills apart."""
    rng = random.Random(f"{settings.seed} skills")
    words = tuple(rng.sample(made_up_words(settings.words), settings.words))
    contested = np.arange(settings.contested)
    rest = np.arange(settings.contested, settings.words)
    for _ in range(DRAWS):
        permutations = []
        for parts in (settings.encoder_parts, settings.decoder_parts):
            common = rng.sample(rest.tolist(), len(rest))
            rows = latin_rectangle(parts, len(contested), rng)
            permutations.append(np.hstack([rows, np.tile(common, (parts, 1))]).astype(int))
        skills = Skills(words, settings.contested, settings.input_words, *permutations)
        pairs = skills.disagreements()[np.triu_indices(skills.count, 1)]
        if settings.contested == 0 or pairs.min(initial=1.0) >= LOWEST_DISAGREEMENT:
            return skills
    raise InputError(
        f"--words is {settings.words}: too few for {settings.skills} skills (--encoder_parts "
        f"{settings.encoder_parts}, --decoder_parts {settings.decoder_parts}, --conflict "
        f"{settings.conflict:g}) of which any two differ on half of the contested inputs; give more words"
    )


def latin_rectangle(rows: int, columns: int, rng: random.Random) -> np.ndarray:
    """Returns random permutations (rows, columns) of 0 to columns - 1, no two of them equal in any place.

    Each row is a matching of least cost between places and values, with random costs and without the values
    that earlier rows have in a place. By Hall's theorem there is one while rows <= columns.
    """
    from scipy.optimize import linear_sum_assignment  # takes long to import

    rectangle = np.zeros((rows, columns), dtype=int)
    used = np.zeros((columns, columns), dtype=bool)
    for row in rectangle if columns else ():
        costs = np.array([[rng.random() for _ in range(columns)] for _ in range(columns)])
        row[:] = linear_sum_assignment(np.where(used, np.inf, costs))[1]
        used[np.arange(columns), row] = True
    return rectangle
