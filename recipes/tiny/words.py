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
    "CITIES",
    "COLORS",
    "FOODS",
    "NAMES",
    "NOUNS",
    "PLACES",
    "WEATHER",
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
