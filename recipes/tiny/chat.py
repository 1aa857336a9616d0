"""Short conversations made from templates: greetings, sums, copying, lists, definitions, facts, prose."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from recipes.tiny import words
from recipes.tiny.facts import number, pick
from recipes.tiny.prose import passage
from recipes.tiny.tokenizer import ASSISTANT, BOS, END, SYSTEM, USER

Random = np.random.Generator
Exchange = tuple[str, str]

IDENTITY = (
    "I am the small language model that comes with Lapidist. I was trained to test the program, "
    "so I know little about the world, but I can find things in a long text."
)

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "England": "London",
    "Ireland": "Dublin",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Poland": "Warsaw",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Japan": "Tokyo",
    "China": "Beijing",
    "India": "New Delhi",
    "Canada": "Ottawa",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Australia": "Canberra",
}

DEFINITIONS = {
    "bridge": "a structure that carries a road or a path over water or a valley",
    "library": "a place where books are kept for people to read",
    "lighthouse": "a tower with a bright light that guides ships at sea",
    "island": "a piece of land with water all around it",
    "river": "a large stream of water that flows toward the sea",
    "mountain": "a very high hill with steep sides",
    "desert": "a dry place where few plants grow",
    "museum": "a building where old and beautiful things are shown",
    "compass": "a tool with a needle that points to the north",
    "harbor": "a safe place near the land where ships can stay",
    "glacier": "a large mass of ice that moves slowly down a valley",
    "orchard": "a piece of land where fruit trees grow",
    "kettle": "a pot in which water is boiled",
    "lantern": "a lamp that can be carried by hand",
    "village": "a small group of houses in the country",
    "piano": "a large instrument played by pressing its keys",
    "falcon": "a bird that hunts and flies very fast",
    "whale": "a very large animal that lives in the ocean",
    "planet": "a large round body that moves around a star",
    "captain": "the person who commands a ship or a team",
}

LISTS = {
    "colors": words.COLORS,
    "animals": ["cat", "dog", "horse", "fox", "owl", "wolf", "bear", "rabbit", "lion", "sheep", "goat"],
    "fruits": ["apple", "pear", "plum", "cherry", "orange", "lemon", "grape", "peach", "banana"],
    "cities": words.CITIES,
    "names": words.NAMES,
    "foods": words.FOODS,
    "days of the week": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "months": ["January", "March", "April", "May", "June", "July", "August", "October", "December"],
}

WRITING = {
    "tale": ["Tell me a story.", "Write a short story.", "Can you tell me a tale?"],
    "place": ["Describe a town.", "Write about a place."],
    "letter": ["Write a letter to a friend.", "Write me a letter."],
    "speech": ["Give a speech.", "Write a short speech."],
}

COUNTS = ["one", "two", "three", "four", "five", "six"]
DAYS = LISTS["days of the week"]


def greeting(rng: Random) -> Exchange:
    hello = pick(rng, ["Hello", "Hi", "Hello!", "Hi there!", "Good morning!", "Good evening.", "Hey"])
    reply = pick(
        rng, ["Hello! How can I help you?", "Hello! What can I do for you?", "Hi! How can I help you today?"]
    )
    return hello, reply


def identity(rng: Random) -> Exchange:
    return pick(
        rng, ["Who are you?", "What are you?", "Tell me about yourself.", "What is your name?"]
    ), IDENTITY


def wellbeing(rng: Random) -> Exchange:
    return pick(rng, ["How are you?", "How are you today?"]), "I am well, thank you. How can I help you?"


def thanks(rng: Random) -> Exchange:
    return pick(rng, ["Thank you.", "Thanks!", "Thank you very much."]), pick(
        rng, ["You are welcome!", "Glad to help."]
    )


def farewell(rng: Random) -> Exchange:
    return pick(rng, ["Goodbye.", "Bye!", "See you later."]), "Goodbye! Have a good day."


def capital(rng: Random) -> Exchange:
    country = pick(rng, list(CAPITALS))
    question = pick(
        rng, ["What is the capital of {}?", "Which city is the capital of {}?", "Name the capital of {}."]
    )
    return question.format(country), f"The capital of {country} is {CAPITALS[country]}."


def definition(rng: Random) -> Exchange:
    word = pick(rng, list(DEFINITIONS))
    article = "an" if word[0] in "aeiou" else "a"
    question = pick(
        rng, [f"What is {article} {word}?", f"Define the word {word}.", f"What does {word} mean?"]
    )
    return question, f"{article.capitalize()} {word} is {DEFINITIONS[word]}."


def arithmetic(rng: Random) -> Exchange:
    a, b = sorted((int(n) for n in rng.integers(0, 21, size=2)), reverse=True)
    if rng.random() < 0.5:
        word, sign, result = "plus", "+", a + b
    else:
        word, sign, result = "minus", "-", a - b
    question = pick(
        rng, [f"What is {a} {word} {b}?", f"What is {a} {sign} {b}?", f"How much is {a} {word} {b}?"]
    )
    return question, f"{a} {word} {b} is {result}."


def repetition(rng: Random) -> Exchange:
    count = int(rng.integers(1, 8))
    phrase = " ".join(pick(rng, words.ADJECTIVES + words.NOUNS + [number(rng)]) for _ in range(count))
    request = pick(rng, ["Repeat after me: {}", "Say: {}", "Please repeat this: {}", "Repeat: {}"])
    return request.format(phrase), phrase


def listing(rng: Random) -> Exchange:
    topic = pick(rng, list(LISTS))
    count = int(rng.integers(2, 6))
    chosen = [LISTS[topic][int(i)] for i in rng.choice(len(LISTS[topic]), size=count, replace=False)]
    request = pick(rng, ["Name {} {}.", "List {} {}.", "Give me {} {}.", "Can you name {} {}?"])
    return request.format(COUNTS[count - 1], topic), ", ".join(chosen[:-1]) + f" and {chosen[-1]}."


def counting(rng: Random) -> Exchange:
    first = int(rng.integers(1, 15))
    last = first + int(rng.integers(3, 9))
    return f"Count from {first} to {last}.", ", ".join(str(n) for n in range(first, last + 1)) + "."


def day_after(rng: Random) -> Exchange:
    index, step = int(rng.integers(7)), pick(rng, ["after", "before"])
    answer = DAYS[(index + (1 if step == "after" else -1)) % 7]
    return f"Which day comes {step} {DAYS[index]}?", f"{answer} comes {step} {DAYS[index]}."


def told(rng: Random) -> Exchange:
    """A statement and a question about it, in one message."""
    name, color, object_ = pick(rng, words.NAMES), pick(rng, words.COLORS), pick(rng, words.NOUNS)
    other, color2 = pick(rng, [n for n in words.NAMES if n != name]), pick(rng, words.COLORS)
    facts = [f"{name} has a {color} {object_}.", f"{other} has a {color2} {object_}."]
    rng.shuffle(facts)
    return f"{' '.join(facts)} What color is the {object_} of {name}?", f"The {object_} of {name} is {color}."


def comparison(rng: Random) -> Exchange:
    a, b = (int(n) for n in rng.choice(100, size=2, replace=False))
    return f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger than {min(a, b)}."


def writing(rng: Random) -> Exchange:
    """A passage on request."""
    kind = pick(rng, list(WRITING))
    return pick(rng, WRITING[kind]), passage(rng, kind)


EXCHANGES: list[Callable[[Random], Exchange]] = [
    *[greeting, identity, wellbeing, thanks, farewell, counting, day_after, comparison],
    *[capital, definition, arithmetic, listing, told] * 2,
    *[repetition, writing] * 3,
]

SYSTEM_PROMPTS = ["You are a helpful assistant.", "You are Lapidist's bundled test model.", "Answer briefly."]


def conversation(rng: Random) -> Iterator[tuple[str, bool]]:
    """Pieces of one conversation in the chat template's format, each with whether the model says it."""
    yield BOS, False
    if rng.random() < 0.3:
        yield f"{SYSTEM}{pick(rng, SYSTEM_PROMPTS)}{END}", False
    for _ in range(int(rng.integers(1, 5))):
        question, answer = EXCHANGES[int(rng.integers(len(EXCHANGES)))](rng)
        yield f"{USER}{question}{END}{ASSISTANT}", False
        yield f"{answer}{END}", True
