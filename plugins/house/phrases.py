"""What the residents say: per intent the everyday sentences of the stream, and others that are kept for evaluation.

A held-out sentence is never said in the stream (a test keeps it so), and is no near copy of one that is.
"""

from __future__ import annotations

from dataclasses import dataclass

from plugins.house.model import Value

NIGHT = tuple(range(22, 24)) + tuple(range(5))
DAY = tuple(range(8, 18))
EVENING = tuple(range(17, 24))
ANY = tuple(range(24))


@dataclass(frozen=True)
class Intent:
    """Something a person may want and say. `device` is empty for small talk that is not meant for the house."""

    name: str
    room: str  # "" = any room
    device: str
    old: Value
    new: Value
    said: tuple[str, ...]
    held_out: tuple[str, ...]
    hours: tuple[int, ...] = ANY
    feels: tuple[tuple[str, str], ...] = ()  # quantity, words (by spaces) that make it plausible


def _lines(text: str) -> tuple[str, ...]:
    """One sentence a line, or several with bars between them."""
    return tuple(phrase.strip() for line in text.strip().splitlines() for phrase in line.split("|"))


_ALL = (
    Intent(
        "too dark", "living_room", "lamp", "bright", "bright",
        _lines("""
            it is too dark to read in here | I can hardly see the page | can we have proper light please
            my eyes hurt, I need more light for this | I cannot see what I am knitting
            give me full light for the puzzle | it is awfully gloomy in here
            I need to find my glasses, make it bright | we want to play cards, light it up
            I can't make out the letters
        """),
        _lines("""
            this book is impossible to read like this | I keep squinting at my crossword
            more light, I want to sew a button on | it's so murky that I can't see the board game
        """),
        feels=(("light", "dark dim"),),
    ),
    Intent(
        "film", "living_room", "lamp", "dim", "off",
        _lines("""
            we are going to watch a film | film night, everybody sit down | the movie is starting
            let us put on that thriller now | time for our series | press play, I have the popcorn
            let's watch the new episode | it's cinema time | the film begins in a minute
        """),
        _lines("""
            shall we see a movie | next episode please, come and sit with me | I've got popcorn, start the thriller
            the series is about to begin
        """),
        hours=EVENING,
        feels=(("light", "dark dim"),),
    ),
    Intent(
        "glare", "living_room", "blind", "down", "down",
        _lines("""
            the sun is right in my eyes | there is a reflection on the screen
            I can't see the laptop, the sun is blinding | the sunlight is too strong on the sofa
            everything glares in here | keep the sun out please | the sun is bleaching the carpet
            the neighbours can look straight in | that low sun is terrible
        """),
        _lines("""
            I am being blinded by the sunshine | the screen reflects so much that I see nothing
            people on the street can see us through the window | please shut out that harsh sun
        """),
        hours=DAY,
        feels=(("light", "bright glaring"),),
    ),
    Intent(
        "daylight", "living_room", "blind", "up", "up",
        _lines("""
            let some daylight in | what is the weather like out there, I want to look outside
            the plants need some sun | it feels like a cave in here with this blind | open up, it is a lovely day
            I would like to see the garden | let the sunshine in | I want to watch the birds at the feeder
            it's a pity to shut out such a morning
        """),
        _lines("""
            I'd love to look at the garden for a while | the flowers want sunshine
            such a nice day and we cannot see any of it | could we get some natural light
        """),
        hours=DAY,
    ),
    Intent(
        "leaving", "living_room", "lamp", "off", "off",
        _lines("""
            we are going out now | bye, see you tonight | I am off to work | we're leaving for the theatre
            come on, the bus is here, let's go | we'll be away until late | I'm heading to the gym
            the taxi is waiting, goodbye | nobody will be home for a while
        """),
        _lines("""
            see you later, I am leaving | off we go to the restaurant | goodbye house, we are away for the evening
            I have to run, the train won't wait
        """),
    ),
    Intent(
        "chopping", "kitchen", "lamp", "bright", "bright",
        _lines("""
            I can't see what I am chopping | where is the salt, I can't see a thing | I need light on the worktop
            I nearly cut my finger in this gloom | is this pan clean, I cannot tell | it is too dark to cook
            light please, I am reading the recipe | I can't find the corkscrew in the dark
        """),
        _lines("""
            I can barely see the knife | the recipe is unreadable in this light
            it's so dark that I can't tell sugar from salt | some light over the stove would help
        """),
        feels=(("light", "dark dim"),),
    ),
    Intent(
        "smell", "kitchen", "fan", "high", "high",
        _lines("""
            something is burning | it smells of fish in here | I am frying onions | the whole place is full of smoke
            the toast is burnt | there is steam everywhere from the pasta | we need some air, the garlic is strong
            the pan is smoking | get rid of this smell please
        """),
        _lines("""
            phew, what a stink of fried fish | the oil is smoking like mad | I burnt the pancakes
            so much steam from that pot
        """),
    ),
    Intent(
        "too loud", "kitchen", "fan", "off", "off",
        _lines("""
            I can't hear myself think with that thing | it is too loud, I am on the phone | stop that noise please
            the humming drives me mad | I can't hear the radio | please, silence, the baby sleeps
            that whirring gives me a headache | turn that racket off
        """),
        _lines("""
            what a din, I can't understand the caller | I want it quiet in here | that droning is unbearable
            I'd like to listen to the news without the humming
        """),
    ),
    Intent(
        "to bed", "bedroom", "lamp", "off", "off",
        _lines("""
            we are off to bed | good night | I am so tired, sleep well | I want to sleep now | time to sleep
            that's enough reading, night night | sweet dreams everyone | I can't keep my eyes open any more
        """),
        _lines("""
            sleep tight | I'm exhausted, time to close my eyes | let us go to sleep
            nighty night, see you in the morning
        """),
        hours=NIGHT,
    ),
    Intent(
        "bed book", "bedroom", "lamp", "dim", "dim",
        _lines("""
            I will read a little before I sleep | just one more chapter in bed | I can't find my slippers
            a bit of light by the bed please | I want to look something up in my book
            let me write in my diary for a moment | something small to see by, I am getting dressed
            I am going to read to the little one
        """),
        _lines("""
            one chapter of my novel, then I sleep | I'd like to write my diary | a soft light while I undress
            where did I leave my book
        """),
        hours=(19, 20, 21, 22, 23, 0, 1),
        feels=(("light", "dark"),),
    ),
    Intent(
        "too cold", "bedroom", "heating", 21, 19,
        _lines("""
            I am freezing | it is chilly in here | my feet are like ice | brr, it is cold this morning
            I need a second blanket | can we have it warmer | I am shivering | my nose is cold
            it's like a fridge in this room
        """),
        _lines("""
            my hands are icy | it feels like winter in this bed | could you warm the room up
            I'm so cold that my teeth chatter
        """),
        feels=(("temperature", "cold cool"),),
    ),
    Intent(
        "too hot", "bedroom", "heating", 17, 17,
        _lines("""
            I am sweating | it is far too warm to sleep | it's boiling in here | I can't sleep in this heat
            I had to throw off the duvet | make it cooler please | it is stifling | I woke up hot and thirsty
        """),
        _lines("""
            it's like a sauna in this room | I'm melting | too hot under the duvet
            could we have it a bit cooler at night
        """),
        feels=(("temperature", "mild warm"),),
    ),
    Intent(
        "steam", "bathroom", "fan", "high", "high",
        _lines("""
            the mirror is all fogged up | I can't see my face for steam | it is like a sauna after that shower
            the tiles are dripping | there is mould coming in the corner | the towels never dry in here
            it is so damp | the window is all steamed up
        """),
        _lines("""
            I can't shave, the mirror is misty | water is running down the walls | everything is damp after my bath
            the steam won't go away
        """),
        feels=(("humidity", "humid normal"),),
    ),
    Intent(
        "keys", "hall", "lamp", "bright", "bright",
        _lines("""
            where are my keys | I can't find my other shoe | who is at the door, I can't see them
            I tripped over the bag again | I cannot find the keyhole | which coat is mine
            help me look for the umbrella | mind the step, you can't see it
        """),
        _lines("""
            I stumbled over somebody's boots | has anyone seen my scarf | I'm searching for my keys
            I can't tell which jacket this is
        """),
        feels=(("light", "dark dim"),),
    ),
    Intent(
        "baby", "hall", "lamp", "dim", "dim",
        _lines("""
            the light wakes the baby | shh, the little one is asleep | it shines right into the nursery
            not so bright, people are sleeping | just enough to find the way | softer please, it is late
            that light is dazzling at this hour | keep it low for the baby
        """),
        _lines("""
            careful, you'll wake the child with that | a gentle glow is plenty at this hour
            it's glaring into the baby's room | only a little light, they are all in bed
        """),
        hours=(19, 20, 21, *NIGHT),
        feels=(("light", "dark dim"),),
    ),
    Intent(
        "small talk", "", "", "", "",
        _lines("""
            did you feed the cat | my mother called today | what shall we have for dinner
            I had such a long day at work | have you seen the score | the train was late again
            happy birthday to you | we should visit Tom on Sunday | I think the exam went well | who wants some tea
            it's your turn to walk the dog | that was a funny joke
        """),
        _lines("""
            grandma sends her love | did you pay the rent | I met our old teacher today | how was school
            we are out of milk | your sister is coming on Friday
        """),
    ),
)  # fmt: skip

INTENTS = {intent.name: intent for intent in _ALL}
SMALL_TALK = "small talk"
