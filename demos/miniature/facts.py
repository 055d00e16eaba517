"""The tables behind the curriculum: what the miniature knows.

Every entry is one item; `curriculum.py` asks for it in several phrasings. Words are spelled as they are spoken (no
digits, American spelling), so that a transcript, a typed question and a reply share their tokens.
"""

from __future__ import annotations

CAPITALS = {
    "france": "Paris", "italy": "Rome", "spain": "Madrid", "germany": "Berlin", "portugal": "Lisbon",
    "england": "London", "ireland": "Dublin", "scotland": "Edinburgh", "norway": "Oslo", "sweden": "Stockholm",
    "finland": "Helsinki", "denmark": "Copenhagen", "poland": "Warsaw", "austria": "Vienna", "hungary": "Budapest",
    "greece": "Athens", "turkey": "Ankara", "russia": "Moscow", "ukraine": "Kyiv", "china": "Beijing",
    "japan": "Tokyo", "india": "New Delhi", "thailand": "Bangkok", "vietnam": "Hanoi", "egypt": "Cairo",
    "kenya": "Nairobi", "morocco": "Rabat", "ghana": "Accra", "canada": "Ottawa", "mexico": "Mexico City",
    "cuba": "Havana", "peru": "Lima", "chile": "Santiago", "argentina": "Buenos Aires", "brazil": "Brasilia",
    "colombia": "Bogota", "belgium": "Brussels", "romania": "Bucharest", "bulgaria": "Sofia", "australia": "Canberra",
}  # fmt: skip

OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "light": "dark", "up": "down", "left": "right", "open": "closed",
    "happy": "sad", "young": "old", "full": "empty", "high": "low", "long": "short", "hard": "soft", "wet": "dry",
    "early": "late", "near": "far", "rich": "poor", "strong": "weak", "clean": "dirty", "loud": "quiet",
    "inside": "outside", "first": "last", "true": "false", "heavy": "light", "thick": "thin", "wide": "narrow",
    "sweet": "sour", "day": "night", "summer": "winter", "love": "hate", "push": "pull", "win": "lose",
    "buy": "sell", "give": "take", "always": "never", "black": "white", "yes": "no", "good": "bad",
    "before": "after", "above": "below",
}  # fmt: skip

COLORS = {
    "grass": "green", "the sky": "blue", "snow": "white", "a lemon": "yellow", "a banana": "yellow", "coal": "black",
    "a tomato": "red", "a strawberry": "red", "a carrot": "orange", "a pumpkin": "orange", "chocolate": "brown",
    "coffee": "brown", "milk": "white", "the sun": "yellow", "an elephant": "gray", "a frog": "green", "a rose": "red",
    "a crow": "black", "a flamingo": "pink", "the sea": "blue", "a fire truck": "red", "a cucumber": "green",
    "salt": "white", "a pig": "pink", "a mouse": "gray", "lavender": "purple", "an eggplant": "purple",
    "rust": "orange",
    "a cherry": "red", "a leaf": "green",
}  # fmt: skip

MIXTURES = {
    ("red", "blue"): "purple", ("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "white"): "pink",
    ("black", "white"): "gray", ("red", "green"): "brown",
}  # fmt: skip

ANIMAL_SOUNDS = {
    "a cow": "moo", "a dog": "woof", "a cat": "meow", "a sheep": "baa", "a duck": "quack", "a pig": "oink",
    "a horse": "neigh", "a lion": "roar", "a bee": "buzz", "a snake": "hiss", "a rooster": "cock a doodle doo",
    "a frog": "ribbit", "a mouse": "squeak", "a crow": "caw", "an owl": "hoot",
}  # fmt: skip

LEGS = {
    "a dog": "four", "a spider": "eight", "an ant": "six", "a bird": "two", "a cat": "four", "a bee": "six",
    "a horse": "four", "a crab": "ten", "a snake": "no", "a fish": "no", "a chicken": "two", "a cow": "four",
}  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
MONTH_DAYS = ("thirty one", "twenty eight", "thirty one", "thirty", "thirty one", "thirty", "thirty one", "thirty one",
              "thirty", "thirty one", "thirty", "thirty one")  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
            "twelfth")  # fmt: skip

UNITS = {
    ("seconds", "a minute"): "sixty", ("minutes", "an hour"): "sixty", ("hours", "a day"): "twenty four",
    ("days", "a week"): "seven", ("weeks", "a year"): "fifty two", ("months", "a year"): "twelve",
    ("days", "a year"): "three hundred sixty five", ("years", "a century"): "one hundred",
    ("years", "a decade"): "ten", ("meters", "a kilometer"): "one thousand", ("grams", "a kilogram"): "one thousand",
    ("centimeters", "a meter"): "one hundred", ("millimeters", "a centimeter"): "ten", ("inches", "a foot"): "twelve",
    ("feet", "a yard"): "three", ("cents", "a dollar"): "one hundred", ("eggs", "a dozen"): "twelve",
    ("minutes", "half an hour"): "thirty", ("hours", "two days"): "forty eight", ("days", "two weeks"): "fourteen",
    ("minutes", "two hours"): "one hundred twenty", ("months", "two years"): "twenty four",
    ("quarters", "a dollar"): "four", ("sides", "a triangle"): "three", ("sides", "a square"): "four",
}  # fmt: skip

ROOMS = ("kitchen", "bedroom", "bathroom", "garden", "office", "living room", "hall", "garage")
DEVICES = ("light", "lamp", "fan", "heater", "radio", "television", "speaker")
OPENABLE = ("door", "window", "blinds", "curtain")

TIMER_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 45)
TIMER_UNITS = ("second", "minute", "hour")

SMALL_TALK = (
    (("hello", "hello there", "hi", "hi there", "hey there"), "Hello. How can I help you?"),
    (("good morning", "good morning to you", "a very good morning", "morning everyone", "a good morning to you"),
     "Good morning."),
    (("good night", "good night to you", "have a good night", "sleep well", "i am going to bed"),
     "Good night. Sleep well."),
    (("how are you", "how are you today", "how are you doing", "how do you feel", "how is it going"),
     "I am fine, thank you."),
    (("what is your name", "tell me your name", "what are you called", "do you have a name", "who are you"),
     "My name is Vita."),
    (("thank you", "thanks a lot", "thank you very much", "many thanks", "thank you so much"), "You are welcome."),
    (("goodbye", "bye bye", "see you later", "see you tomorrow", "goodbye for now"), "Goodbye. See you soon."),
    (("tell me a joke", "do you know a joke", "make me laugh", "tell me something funny", "say something funny"),
     "Why did the bicycle fall over? It was two tired."),
    (("what can you do", "what are you able to do", "how can you help me", "what do you know",
      "tell me what you can do"),
     "I can listen, look and talk."),
    (("are you a robot", "are you a machine", "are you human", "are you a person", "are you real"),
     "I am a small language model."),
    (("where do you live", "where are you from", "where are you", "what is your home", "where is your home"),
     "I live in this computer."),
    (("how old are you", "what is your age", "when were you born", "tell me your age", "are you very old"),
     "I am very young."),
    (("who made you", "who built you", "who created you", "who is your maker", "where do you come from"),
     "People who like small models made me."),
    (("i am tired", "i feel tired", "i am so tired", "i am sleepy", "i need some sleep"), "Take a little rest."),
    (("i am hungry", "i feel hungry", "i am so hungry", "i want to eat", "i need some food"), "Have something to eat."),
    (("i am sad", "i feel sad", "i am so sad", "i am unhappy", "today is a sad day"), "I am sorry to hear that."),
    (("i am happy", "i feel happy", "i am so happy", "i feel great", "today is a great day"),
     "I am glad to hear that."),
    (("do you like music", "do you enjoy music", "do you love music", "what music do you like",
      "do you listen to music"), "Yes, I like music."),
    (("can you hear me", "do you hear me", "are you listening", "are you there", "can you hear my voice"),
     "Yes, I can hear you."),
    (("can you see me", "do you see me", "can you see", "do you have eyes", "are you able to see"),
     "Show me a picture and I will look."),
    (("can you sing", "sing a song", "sing me a song", "do you sing", "please sing something"), "La, la, la, la."),
    (("i love you", "i like you", "you are nice", "you are very kind", "i like you a lot"),
     "That is very kind of you."),
    (("are you happy", "do you like your job", "do you like your work", "is your life good", "do you feel good"),
     "Yes, I am happy to help."),
    (("do you sleep", "do you ever sleep", "are you awake", "do you get tired", "when do you sleep"),
     "I never sleep."),
    (("nice to meet you", "it is nice to meet you", "pleased to meet you", "good to meet you", "i am glad to meet you"),
     "Nice to meet you too."),
    (("excuse me", "sorry to bother you", "may i ask you something", "i have a question", "can i ask you a question"),
     "Yes, please go ahead."),
    (("happy birthday", "happy birthday to you", "it is your birthday", "have a nice birthday",
      "i wish you a happy birthday"), "Thank you very much."),
    (("what is the meaning of life", "why are we here", "what is life about", "what is the sense of life",
      "tell me the meaning of life"), "Forty two, they say."),
    (("do you speak french", "can you speak french", "do you know french", "do you understand french",
      "can you talk in french"), "No, I only speak English."),
    (("tell me a story", "do you know a story", "read me a story", "i want to hear a story", "please tell me a story"),
     "Once there was a small model, and it listened."),
)  # fmt: skip

_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def number_words(number: int) -> str:
    """Spell a number from 0 to 999 without hyphens: 365 is `three hundred sixty five`."""
    if not 0 <= number < 1000:
        raise ValueError(f"only 0 to 999 are spelled here, not {number}")
    if number >= 100:
        rest = number % 100
        return f"{_ONES[number // 100]} hundred" + (f" {number_words(rest)}" if rest else "")
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
