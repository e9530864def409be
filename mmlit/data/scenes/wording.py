"""A form and a sentence pattern become English.

A pattern is a format string whose slots name the parts of the form: `{0}` the first object with its
article, `{r0}` the first relation ("to the left of"), `{v0}` its bare name ("above and"), `{p0}` the same
with a pronoun as target ("to its left"), `{n0}` the first count ("two red squares"), `{o1}` the second
count as a part of the first ("two of them red").
"""

from typing import NamedTuple

import numpy as np

from mmlit.data.scenes.meaning import Count, Description, Form

NUMBERS = ("no", "one", "two", "three", "four")
PRONOUN = {"left": "to its left", "right": "to its right", "above": "above it", "below": "below it"}


class Wording(NamedTuple):
    """The choice among synonyms; a hard negative keeps that of its caption, so that only the meaning
    differs."""

    small: str
    large: str
    noun: str
    left: str
    right: str
    above: str
    below: str


# The words of one row are chosen together, so that a relation and its opposite are said alike.
SYNONYMS = (
    ({"small": "small"}, {"small": "little"}),
    ({"large": "large"}, {"large": "big"}),
    ({"noun": "shape"}, {"noun": "object"}),
    ({"left": "to the left of", "right": "to the right of"}, {"left": "left of", "right": "right of"}),
    ({"above": "above", "below": "below"}, {"above": "higher than", "below": "lower than"}),
)


def draw_wording(*, rng: np.random.Generator) -> Wording:
    """Draw one word of each kind."""
    chosen: dict[str, str] = {}
    for options in SYNONYMS:
        chosen |= options[rng.integers(len(options))]
    return Wording(**chosen)


def say(*, form: Form, pattern: str, wording: Wording) -> str:
    """Say the form in the pattern's words.

    Raises:
        KeyError, IndexError: The pattern has a slot for which the form has no part.
    """
    objects = [_with_article(_noun_phrase(what, wording, number=1)) for what in form.objects]
    slots: dict[str, str] = {}
    for index, relation in enumerate(form.relations):
        slots[f"r{index}"] = getattr(wording, relation.name)
        slots[f"v{index}"] = relation.name
        slots[f"p{index}"] = PRONOUN[relation.name]
    for index, count in enumerate(form.counts):
        slots[f"n{index}"] = f"{NUMBERS[count.number]} {_noun_phrase(count.what, wording, number=count.number)}"
        slots[f"o{index}"] = _part(count, form.counts[0].number, wording)
    return pattern.format(*objects, **slots)


def _noun_phrase(what: Description, wording: Wording, *, number: int) -> str:
    """Say a description without article: "small red circle", "green objects"."""
    noun = what.shape or wording.noun
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return " ".join([*_adjectives(what, wording), noun])


def _adjectives(what: Description, wording: Wording) -> list[str]:
    """Return the size and the colour that are mentioned, in English order."""
    return ([getattr(wording, what.size)] if what.size else []) + ([what.colour] if what.colour else [])


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _part(count: Count, total: int, wording: Wording) -> str:
    """Say a count as a part of `total` things: "two of them red", "one of them a star", "both of them
    small"."""
    whole = "both" if total == 2 else "all"
    amount = whole if count.number == total else NUMBERS[count.number]
    if count.what.shape is None:
        return f"{amount} of them {' and '.join(_adjectives(count.what, wording))}"
    phrase = _noun_phrase(count.what, wording, number=count.number)
    return f"{amount} of them {_with_article(phrase) if count.number == 1 else phrase}"
