"""Sentences drawn from small grammars: to be repeated ("say after me …"), and talk that is meant for somebody else."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from sottovoce.demos.miniature.curriculum import Exchange, sentence, stable_hash

WORDS: dict[str, tuple[str, ...]] = {
    "adjective": ("red", "blue", "green", "yellow", "black", "white", "big", "small", "old", "young", "quick", "slow",
                  "happy", "sad", "warm", "cold", "bright", "dark", "quiet", "loud", "soft", "heavy", "empty", "fresh",
                  "clean", "strange", "sleepy", "clever", "brave", "gentle", "wild", "tall", "round", "broken"),
    "noun": ("bird", "dog", "cat", "horse", "river", "mountain", "garden", "house", "window", "table", "chair", "book",
             "letter", "train", "boat", "bridge", "street", "city", "forest", "flower", "apple", "bottle", "clock",
             "candle", "teacher", "doctor", "farmer", "sailor", "child", "queen", "cloud", "stone", "field", "island",
             "market", "village", "ship", "song", "picture", "basket"),
    "verb": ("sings", "runs", "sleeps", "waits", "falls", "stands", "moves", "shines", "turns", "stops", "grows",
             "smiles", "listens", "returns", "jumps", "rests"),
    "doing": ("finds", "sees", "carries", "follows", "remembers", "paints", "watches", "loves", "opens", "holds",
              "brings", "hears", "needs", "keeps", "wants", "sells"),
    "where": ("near the", "under the", "behind the", "beside the", "above the", "in the", "on the", "across the"),
    "when": ("today", "tomorrow", "tonight", "every morning", "in the evening", "on monday", "on friday",
             "in winter", "in summer", "after lunch", "before dinner", "at noon"),
    "name": ("anna", "peter", "maria", "john", "lucy", "david", "emma", "tom", "sarah", "paul", "nina", "george"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty"),
    "plural": ("birds", "horses", "houses", "books", "letters", "boats", "flowers", "apples", "bottles", "candles",
               "children", "stones", "songs", "pictures", "baskets", "chairs"),
    "food": ("bread", "soup", "cheese", "rice", "salad", "fish", "cake", "tea", "coffee", "milk", "fruit", "pasta"),
    "place": ("office", "station", "school", "kitchen", "park", "shop", "library", "hotel", "beach", "airport"),
    "object": ("keys", "phone", "glasses", "coat", "bag", "umbrella", "shoes", "ticket", "wallet", "jacket"),
}  # fmt: skip

REPEATED = (
    "the {adjective} {noun} {verb}", "the {noun} {verb} {where} {noun}", "the {adjective} {noun} {doing} the {noun}",
    "my {noun} is {adjective}", "the {noun} is {adjective} and {adjective}", "{name} {doing} the {adjective} {noun}",
    "{name} has {number} {plural}", "there are {number} {plural} {where} {noun}", "we like {food} and {food}",
    "{name} and {name} go to the {place}", "the {noun} {verb} {when}", "i see a {adjective} {noun} {when}",
    "{number} {adjective} {plural}", "{name} eats {food} {when}", "a {noun} and a {noun}",
)  # fmt: skip
LEADS = ("say after me", "repeat after me", "please say", "repeat this", "please repeat")

OVERHEARD = (
    "{name} did you see my {object}", "i told {name} about the {food}", "{name} is at the {place} right now",
    "mom where is my {object}", "dad can you pass me the {food}", "i think {name} forgot the {object}",
    "we should go to the {place} {when}", "no i was talking to {name}", "did {name} call you {when}",
    "honey the {food} is ready", "he left his {object} at the {place}", "she said the {noun} was {adjective}",
    "they are coming {when}", "{name} please bring me the {object}", "i will see you at the {place} {when}",
    "what did {name} say about the {food}", "the game starts {when} so hurry up", "sorry {name} i am on the phone",
    "let us meet at the {place} {when}", "did you buy {food} for {name}", "{name} wants more {food}",
    "i lost my {object} at the {place}", "wait for me {name}", "ask {name} if the {food} is {adjective}",
)  # fmt: skip

_SLOT = re.compile(r"\{(\w+)\}")


def fill(pattern: str, draw: random.Random) -> str:
    """One sentence of a pattern; two slots of one kind get different words."""
    used: set[str] = set()

    def pick(match: re.Match[str]) -> str:
        word = draw.choice([word for word in WORDS[match[1]] if word not in used])
        used.add(word)
        return word

    return _SLOT.sub(pick, pattern)


def is_held_out(text: str) -> bool:
    """A fifth of all sentences, chosen by their words."""
    return stable_hash("sentence", text) % 5 == 0


def say_after_me(seed: int) -> Iterator[Exchange]:
    """An endless stream of requests to repeat a sentence. A few words only, up to a full sentence."""
    draw = random.Random(seed)
    while True:
        text = fill(draw.choice(REPEATED), draw)
        question = f"{draw.choice(LEADS)} {text}"
        yield Exchange(question, sentence(text), "say_after_me", is_held_out(text))


def overheard(seed: int) -> Iterator[Exchange]:
    """An endless stream of talk between other people; the right reply is silence."""
    draw = random.Random(seed)
    while True:
        text = fill(draw.choice(OVERHEARD), draw)
        yield Exchange(text, "", "overheard", is_held_out(text))
