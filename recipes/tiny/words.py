"""Words that the generated tasks draw from: those of hidden facts, and more."""

# ruff: noqa: SIM905 - a word list reads better as words than as quotes and commas

from lapidist.evaluation.needle_words import (
    ACTIVITIES,
    ADJECTIVES,
    CITIES,
    FOODS,
    NOUNS,
    PLACES,
    WEATHER,
)

__all__ = [
    "ACTIVITIES",
    "ADJECTIVES",
    "ANIMALS",
    "CITIES",
    "COLORS",
    "COUNTRIES",
    "FAMILY",
    "FOODS",
    "MONTHS",
    "NAMES",
    "NOUNS",
    "NUMBERS",
    "OBJECTS",
    "PLACES",
    "ROLES",
    "SURNAMES",
    "TOWN_BEGINNINGS",
    "TOWN_ENDINGS",
    "WEATHER",
    "WOMEN",
]

NAMES = """
    Adam Alice Amara Anna Arthur Ben Carla Carlos Clara Daniel David Diana Edward Elena Emma Eric Eva
    Felix Fiona Frank George Grace Hannah Harry Helen Henry Hugo Ingrid Irene Isaac Ivan Jack James Jane
    John Julia Karen Kate Laura Leo Lily Linda Lucas Lucy Maria Mark Martha Martin Mary Max Mei Michael
    Mina Nadia Nina Noah Nora Oliver Omar Oscar Paul Peter Priya Rachel Ravi Robert Rosa Ruth Sam Sara
    Simon Sofia Stella Tara Thomas Victor Walter Yuki
""".split()

COLORS = """
    red blue green yellow orange purple black white brown grey pink gold silver
""".split()


SURNAMES = """
    Adams Baker Bennett Carter Clark Cooper Davis Dixon Ellis Evans Fisher Foster Graham Grant
    Harris Hughes Hunter Jackson Kelly King Lawson Marsh Mason Miller Morgan Norris Palmer Parker
    Porter Reed Rogers Shaw Stone Turner Walker Ward Watson Webb Wright Young
""".split()

TOWN_BEGINNINGS = """
    Ash Black Bridge Brook Clay East Fair Green Hart High King Long Mill New North Oak Red South
    Stan West
""".split()

TOWN_ENDINGS = """
    bury field ford ham haven hill land ley mouth port stead ton wick wood worth
""".split()

ROLES = """
    baker carpenter doctor farmer fisherman gardener girl hunter merchant miller musician nurse
    painter sailor shepherd soldier tailor teacher traveler woodcutter writer
""".split()

FAMILY = """
    brother cousin father friend mother neighbor sister teacher uncle aunt
""".split()

ANIMALS = """
    bear bird cat crow dog donkey eagle falcon fox goat hawk horse owl rabbit raven sheep turtle
    wolf
""".split()

OBJECTS = """
    basket bell boat book bottle candle coin compass drum hammer kettle key ladder lamp lantern
    letter mirror pencil piano ring rose spoon stone violin wagon wheel
""".split()

COUNTRIES = """
    Australia Austria Canada China Denmark Egypt England Finland France Germany Greece India Ireland
    Italy Japan Kenya Mexico Norway Peru Poland Portugal Spain Sweden
""".split()

# The names of women among NAMES.
WOMEN = set(
    """
    Alice Amara Anna Clara Diana Elena Emma Eva Fiona Grace Hannah Helen Ingrid Irene Jane Julia
    Karen Kate Laura Lily Linda Lucy Maria Martha Mary Mei Mina Nadia Nina Nora Priya Rachel Rosa
    Ruth Sara Sofia Stella Tara Yuki Carla
""".split()
)

NUMBERS = """
    two three four five six seven eight nine ten twelve
""".split()

MONTHS = """
    January March April May June July August October November
""".split()
