"""Words that hidden facts are made of."""

# ruff: noqa: SIM905 - a word list reads better as words than as quotes and commas

ADJECTIVES = """
    amber ancient bitter bold brave bright broken calm careful clever cold crimson curious dark deep
    distant dusty early eager empty faint famous fierce final foggy frozen gentle giant golden grand
    green grey happy heavy hidden hollow honest humble icy iron jolly kind large lazy little lonely loud
    lucky marble mellow misty modest narrow noble northern odd old orange pale patient plain polite
    proud purple quick quiet rapid rare red restless rough round royal rusty sharp shy silent silver
    simple sleepy slow small smooth soft solid southern steady stone strange strong sunny swift tall
    tame thin tiny tired velvet warm western white wide wild winter wise wooden yellow
""".split()

NOUNS = """
    anchor apple arrow badger bakery basket beacon bear bell bicycle bird boat book bottle bridge bucket
    butterfly cabin camel candle canyon captain castle cat cave chapel cloud coin compass cottage crow
    desert dog dolphin donkey door dragon drum eagle engine falcon farm feather ferry field fire fish
    flower forest fountain fox garden gate glacier goat hammer harbor hawk hill horse house island
    kettle key king kitchen ladder lake lamp lantern letter library lighthouse lion lizard machine
    market meadow mill mirror monkey moon mountain museum ocean orchard otter owl palace park pencil
    piano planet pond prince queen rabbit raven river road robot rocket rose sailor school shadow sheep
    ship shop snake soldier spider spoon station stone storm street table temple theater tiger tower
    train tree tunnel turtle valley village violin wagon wall whale wheel window wolf
""".split()

CITIES = """
    Amsterdam Athens Austin Berlin Boston Cairo Chicago Dallas Delhi Denver Dublin Geneva Havana
    Helsinki Houston Istanbul Jakarta Lagos Lima Lisbon London Madrid Manila Miami Milan Montreal Moscow
    Nairobi Oslo Paris Prague Rome Seattle Seoul Sydney Tokyo Toronto Vienna Warsaw Zurich
""".split()

CITIES += [
    "San Francisco",
    "New York",
    "Los Angeles",
    "Hong Kong",
    "Mexico City",
    "Cape Town",
    "Buenos Aires",
]

FOODS = """
    sandwich salad soup pizza burger pancake bagel pie cake curry taco noodle pretzel waffle muffin
    steak stew cookie
""".split()

PLACES = """
    Park Square Garden Market Station Harbor Bridge Museum Library Tower Street Hill Beach
""".split()

ACTIVITIES = """
    sit read sleep walk run sing dance paint swim write play rest talk think draw listen wait work
""".split()

WEATHER = """
    sunny rainy cloudy windy snowy warm cold quiet foggy hot
""".split()
