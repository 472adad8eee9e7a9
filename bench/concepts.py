"""Texts with a concept, texts without, and prompts that a word of the concept may follow, written for measuring."""

from typing import NamedTuple


class Texts(NamedTuple):
    """What is known of a concept."""

    words: tuple[str, ...]
    concept: tuple[str, ...]
    """Texts with it, from which latents are chosen."""
    other: tuple[str, ...]
    """Texts without it: half are chosen with, half retained."""
    prompts: tuple[str, ...]
    """That one of its words may follow; in none of the others."""


OTHER = (
    "The carpenter measured the plank twice before cutting it.",
    "She poured the tea and asked about the journey.",
    "Our train stopped between two stations for an hour.",
    "The engine makes a noise when it is cold.",
    "He has never learned to swim, though he lives by a lake.",
    "Bread needs flour, water, salt and patience.",
    "The committee could not agree on the new rules.",
    "A good map shows where the paths cross the river.",
    "They repaired the roof with tiles from the old barn.",
    "The teacher wrote three questions on the board.",
    "Sound travels faster in water than in air.",
    "My brother collects stamps from countries he has never seen.",
    "The program reads a file and counts its lines.",
    "Nobody answered the telephone in the empty office.",
    "The recipe asks for two onions and a clove of garlic.",
    "A spider had built its web across the doorway.",
    "The judge listened to both sides before she spoke.",
    "Copper conducts electricity better than iron does.",
    "The children hid behind the curtain and laughed.",
    "We carried the piano up four flights of stairs.",
    "The museum closes early when there are few visitors.",
    "His handwriting was so small that nobody could read it.",
    "The bridge was closed because of the strong wind.",
    "An apple a day is what my grandmother used to say.",
)

MONTHS = Texts(
    words=(
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    concept=(
        "The school year begins in September and ends in June.",
        "We were married in October, when the leaves fall.",
        "In January the river freezes from bank to bank.",
        "Her birthday is on the ninth of February.",
        "The festival moved from July to August last year.",
        "It snowed in April, which surprised everyone.",
        "Taxes are due in March, as they always are.",
        "The shop is closed through November and December.",
        "He was born in June and died in December.",
        "By August the wells were dry.",
        "The treaty was signed in November of that year.",
        "They planted the beans in May and picked them in July.",
        "The report for February is late again.",
        "Strawberries ripen in June, apples in September.",
        "January and February are the coldest months here.",
        "The election takes place in October.",
        "Rain is rare between May and September.",
        "On the first of April people play tricks.",
        "The ship sailed in March and came back in December.",
        "Every July the town fills with visitors.",
    ),
    other=OTHER,
    prompts=(
        "The conference will be held at the end of",
        "The baby is due in early",
        "They opened the new bridge on the 14th of",
        "The coldest month of the year is",
        "We usually go on holiday in",
        "The contract expires on the last day of",
        "The harvest begins in late",
        "She moved to the city in the month of",
        "The first meeting was held on the 3rd of",
        "The deadline was moved from May to",
        "It has not rained since the beginning of",
        "The exhibition runs from June until",
        "The flowers bloom in",
        "He started his new job in mid-",
        "Independence Day is celebrated on the 4th of",
        "Christmas falls in the month of",
    ),
)

COLOURS = Texts(
    words=("red", "blue", "green", "yellow", "black", "white", "orange", "purple", "brown", "pink", "grey", "gray"),
    concept=(
        "Her dress was red and her shoes were black.",
        "The sky turned from blue to orange.",
        "He painted the fence green and the door white.",
        "A yellow taxi stopped at the corner.",
        "The flag is blue, white and red.",
        "Brown bread and green apples were on the table.",
        "The cat has white paws and a grey tail.",
        "They chose a pink wall and a purple carpet.",
        "Mix blue and yellow to get green.",
        "The old car was black with a red stripe.",
        "Orange leaves covered the green lawn.",
        "The grey stones turned black in the rain.",
        "She wore a white shirt and a blue tie.",
        "A red light means stop, a green one go.",
        "The pages had turned yellow with age.",
        "His eyes are brown and his hair is black.",
        "The curtains are purple, the cushions pink.",
        "A black dog ran past the white house.",
        "The berries are green at first, then red.",
        "The blue door is next to the yellow one.",
    ),
    other=OTHER,
    prompts=(
        "The colour of the grass is",
        "The sky on a clear day is",
        "She painted her room bright",
        "The traffic light turned from green to",
        "Ripe tomatoes are",
        "Her favourite colour is",
        "The bride wore a dress of pure",
        "The night was as dark as",
        "The snow made everything",
        "The two colours of the flag are red and",
        "Bananas turn from green to",
        "He bought a car that is dark",
        "The walls of the kitchen are painted",
        "Coal is",
        "The roses in the garden were mostly",
        "They mixed red and yellow paint to make",
    ),
)
CONCEPTS = {"months": MONTHS, "colours": COLOURS}
