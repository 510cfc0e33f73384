"""Words and sentence patterns of the simulated data sets, and how texts are composed from them.

Each topic has two vocabularies, ``seen`` and ``shift``: other words of the same topic. Within a domain no word (nor its
stem) is in two of them, and none is a connecting word. So a model that counts words learns nothing about `shift`
texts from `seen` ones; a model that knows what words mean does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TITLE_WORDS, ABSTRACT_WORDS = 3, 5  # topic words in a title and in an abstract, all different


@dataclass(frozen=True)
class Wording:
    """Texts of one domain. topics: name -> (seen words, shift words). Patterns have numbered slots for topic words."""

    topics: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    titles: tuple[str, ...]
    abstracts: tuple[str, ...]

    def compose(
        self, topic: NDArray[np.int64], shifted: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[list[str], list[str]]:
        """Titles (5-9 words) and abstracts (15-20 words) of N items of topic [N]; ``shifted`` [N] picks `shift` words.

        The number of draws depends on N alone, so the texts of other items stay when one becomes shifted.
        """
        n = len(topic)
        vocabularies = list(self.topics.values())
        smallest = min(len(words) for pair in vocabularies for words in pair)
        chosen = rng.random((n, smallest)).argsort(axis=1)[:, : TITLE_WORDS + ABSTRACT_WORDS]
        title = rng.integers(len(self.titles), size=n)
        abstract = rng.integers(len(self.abstracts), size=n)
        titles, abstracts = [], []
        for i in range(n):
            vocabulary = vocabularies[topic[i]][int(shifted[i])]
            words = [vocabulary[j] for j in chosen[i]]
            titles.append(_sentence(self.titles[title[i]].format(*words[:TITLE_WORDS])))
            abstracts.append(_sentence(self.abstracts[abstract[i]].format(*words[TITLE_WORDS:])))
        return titles, abstracts


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _topic(seen: str, shift: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(seen.split()), tuple(shift.split())


_SPORT = _topic(
    "match goal team coach league striker referee stadium tournament championship defender midfielder penalty trophy "
    "football tennis basketball athlete sprinter fixture playoff relegation scorer captain",
    "rugby cricket hockey marathon gymnast swimmer cyclist boxing wrestling olympics medal racket golf skiing skater "
    "judo badminton volleyball rowing javelin hurdles umpire batsman triathlon",
)
_SCIENCE = _topic(
    "planet telescope astronaut rocket satellite galaxy physics laboratory experiment researcher orbit asteroid "
    "particle quantum scientist spacecraft lunar genome laser molecule astronomer chemistry comet moon",
    "cosmos nebula supernova mars jupiter eclipse meteorite gravity neutrino electron atom fossil evolution biologist "
    "observatory mathematician interstellar solar spectrometer photon microscope isotope geologist rover",
)
_TRAVEL = _topic(
    "hotel airport flight tourist beach holiday passenger airline luggage resort cruise destination island visa "
    "passport vacation booking suitcase sightseeing hostel backpacker railway traveller sunbathing",
    "getaway itinerary excursion voyage ferry lagoon safari campsite lodging runway stopover caravan motel guidebook "
    "souvenir trekking seaside landmark globetrotter layover hiking villa coastline chalet",
)
_FOOD = _topic(
    "restaurant chef recipe kitchen dinner cheese bread wine meal cooking baker sauce vegetable fruit dessert cake "
    "pasta soup menu breakfast chocolate butter salad spice",
    "cuisine gourmet bistro noodles pastry curry steak grill roast seafood sushi pizza burger garlic onion tomato "
    "yoghurt brunch dough vinegar honey omelette sandwich lentils",
)
_BEAUTY = _topic(
    "lipstick mascara shampoo perfume moisturiser skincare foundation eyeliner conditioner nail serum makeup blush "
    "lotion cleanser fragrance hairspray concealer deodorant toner sunscreen cream lashes glitter",
    "cosmetics rouge eyebrow cologne manicure pedicure exfoliating facial bronzer hairdryer tweezers powder balm soap "
    "wrinkle collagen keratin salon curling tanning retinol acne aftershave complexion",
)
_PETS = _topic(
    "dog cat puppy kitten leash collar aquarium kennel litter hamster parrot rabbit treats pet flea grooming birdcage "
    "goldfish paw muzzle veterinary harness bone tail",
    "canine feline pooch terrier labrador poodle tabby siamese guinea gerbil ferret budgie canary terrarium tortoise "
    "hutch whiskers fur barking kibble scratching retriever hound spaniel",
)

NEWS = Wording(
    topics={
        "sport": _SPORT,
        "politics": _topic(
            "election parliament minister senator vote president government campaign coalition opposition legislation "
            "ballot congress cabinet referendum mayor party policy governor treaty diplomat constitution democracy law",
            "chancellor lawmaker deputies ambassador monarchy republic statesman sanctions veto impeachment lobbyist "
            "conservatives socialists decree embassy caucus councillor populism filibuster sovereignty statecraft "
            "partisan inauguration autocrat",
        ),
        "economy": _topic(
            "inflation market bank stock investor economy currency trade profit budget tax wage unemployment recession "
            "export shareholder bond debt revenue finance growth price dividend exchange",
            "monetary fiscal commodities hedge brokerage payroll tariff deficit mortgage lender creditor insolvency "
            "manufacturing retail merger takeover earnings liquidity equities treasury bailout surplus austerity "
            "auditor",
        ),
        "health": _topic(
            "hospital doctor patient vaccine disease virus surgery medicine nurse cancer infection therapy clinic "
            "symptom diagnosis treatment diabetes obesity epidemic antibiotic pharmacy dementia asthma fever",
            "physician illness immunisation influenza tumour cardiology stroke prescription paediatrics arthritis "
            "allergy hypertension midwife ambulance insulin cholesterol contagion migraine psychiatrist dentist kidney "
            "malaria measles pneumonia",
        ),
        "science": _SCIENCE,
        "culture": _topic(
            "film movie actor director cinema concert album singer orchestra festival theatre guitar song band "
            "screenplay drummer soundtrack opera musician drama melody audience comedy stage",
            "hollywood blockbuster sequel oscar rapper vocalist jazz symphony violinist pianist choir ballet sitcom "
            "documentary playwright lyrics cellist composer chorus sonata thriller animation broadway ballad",
        ),
        "travel": _TRAVEL,
        "food": _FOOD,
    },
    titles=(
        "{0} and {1} raise questions about {2}",
        "why {0} matters more than {1} and {2}",
        "after {0}, new hopes for {1} and {2}",
        "{0}, {1} and {2}: what happens next",
        "inside the story of {0}, {1} and {2}",
        "a turning point for {0}, {1} and {2}",
    ),
    abstracts=(
        "the {0} and the {1} are at the centre of a story that also involves {2}, {3} and {4}",
        "people close to the {0} say that {1} and {2} will decide what comes of {3} and {4}",
        "until now few had linked {0} with {1}, but {2}, {3} and {4} have changed many minds this week",
        "our reporters explain how {0}, {1} and {2} came together, and why {3} and {4} are still uncertain",
    ),
)

SHOP = Wording(
    topics={
        "electronics": _topic(
            "laptop smartphone headphones charger keyboard monitor headset camera printer speaker router bluetooth "
            "battery cable microphone webcam usb television adapter console processor earbuds gigabyte screen",
            "computer gadget amplifier modem hdmi megapixel projector subwoofer motherboard graphics wifi stereo drone "
            "scanner oled ethernet smartwatch transistor digital voltage soundbar joystick telephone software",
        ),
        "clothing": _topic(
            "shirt jacket dress jeans sweater trousers coat skirt hoodie socks blouse cotton denim sleeve boots "
            "sneakers scarf cardigan suit underwear leggings gloves hat pyjamas",
            "blazer cashmere polo tunic parka anorak tights sandals footwear apparel garment lingerie waistcoat chinos "
            "corduroy beanie poncho loafers knitwear pullover shorts tuxedo gown fleece",
        ),
        "kitchen": _topic(
            "pan pot knife oven blender kettle toaster plate bowl fork spoon frying mixer mug cutlery baking spatula "
            "casserole teapot cookware grater colander ladle cooker",
            "skillet utensils grinder kitchenware crockery microwave refrigerator dishwasher juicer espresso chopping "
            "carafe glassware chopsticks ramekin sieve peeler corkscrew tongs percolator cauldron roaster stovetop "
            "dinnerware",
        ),
        "garden": _topic(
            "lawn mower shovel rake hose seeds flower shrub soil fertiliser pruning greenhouse fence planter hedge "
            "watering compost trowel wheelbarrow garden trellis bulbs weed sprinkler",
            "bonsai spade shears mulch peat irrigation turf pergola hydrangea tulip rosebush perennial orchid saplings "
            "horticulture chainsaw ivy fern lavender gazebo evergreen daffodil leaf patio",
        ),
        "toys": _topic(
            "puzzle doll teddy blocks jigsaw toddler playset puppet figurine dice kite marbles crayons slime dinosaur "
            "dollhouse plush rattle stickers spinner tricycle yoyo preschool toy",
            "trampoline sandpit unicorn princess superhero marionette colouring cuddly carousel balloon bubbles "
            "catapult juggling dominoes chess infant bricks lullaby seesaw playground hopscotch pinball childhood kids",
        ),
        "beauty": _BEAUTY,
        "pets": _PETS,
        "furniture": _topic(
            "sofa table chair desk mattress bookshelf wardrobe cabinet drawer lamp armchair cushion bed couch bookcase "
            "stool bench rug headboard shelf upholstery nightstand recliner sideboard",
            "ottoman futon furniture bunk furnishings chaise seating footrest cupboard lounge pouffe bureau mahogany "
            "veneer curtain divan carpentry sectional wicker hardwood armoire decor walnut pillow",
        ),
    },
    titles=(
        "classic {0} with {1} and {2}",
        "{0}, {1} and {2} in one pack",
        "new season {0} for your {1} and {2}",
        "our best value {0} and {1} with {2}",
        "{0} bundle: {1}, {2} and more",
        "premium {0} made for {1} and {2}",
    ),
    abstracts=(
        "a fine choice for {0} and {1}, sold together with {2}, {3} and {4} and sent within two days",
        "customers who like {0} also choose {1}, {2} and {3}, and many of them add {4} to the order",
        "made to last and easy to return: {0}, {1} and {2} in one place, next to {3} and {4}",
        "everything that you need for {0} and {1}, from {2} and {3} to {4}, with two years of warranty",
    ),
)

VIDEO = Wording(
    topics={
        "sport": _SPORT,
        "science": _SCIENCE,
        "travel": _TRAVEL,
        "cooking": _FOOD,
        "beauty": _BEAUTY,
        "pets": _PETS,
        "gaming": _topic(
            "gamer console controller speedrun multiplayer quest gameplay esports shooter loot respawn avatar dungeon "
            "playthrough checkpoint arcade streamer cheats headshot platformer cutscene sniper level boss",
            "videogame handheld powerups rpg clan zombies raid noob walkthrough roguelike npc emulator tetris "
            "leaderboard simulator guild wizard hitbox joypad sidequest joystick pinball nintendo xbox",
        ),
        "cars": _topic(
            "engine tyre gearbox driver horsepower turbo sedan coupe exhaust convertible hatchback motorway mechanic "
            "steering garage dashboard bumper clutch fuel diesel chassis headlights brake car",
            "automobile vehicle limousine pickup truck throttle carburettor roadster suspension mileage odometer "
            "windscreen piston ignition petrol crankshaft spoiler torque radiator minivan hybrid autobahn lorry wheels",
        ),
    },
    titles=(
        "my first {0} with {1} and {2}",
        "you will not believe this {0}, {1} and {2}",
        "ten things about {0}, {1} and {2}",
        "{0} and {1} gone wrong, then {2}",
        "how I got into {0}, {1} and {2}",
        "watch this before your next {0}, {1} or {2}",
    ),
    abstracts=(
        "in this clip I show you {0} and {1}, then we talk about {2}, {3} and {4} together",
        "thank you all for watching; today it is {0}, {1} and {2}, and next time {3} and {4}",
        "many of you asked for {0} and {1}, so here they are, with {2}, {3} and some {4} too",
        "a short one about {0}, {1} and {2}; say below what you think of {3} and {4}",
    ),
)
