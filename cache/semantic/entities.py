"""Things of one kind that are never each other: countries, languages, months, products. Data, and who is missing where.

Only an exchange is certain: each text names one of the kind that the other does not. What stands in one text only may
be said in other words, and is left to others to judge.
"""

import re
from functools import lru_cache

# One kind a line; names parted by commas, aliases of one by =.
_KINDS = """
country: india=indian=indians, china=chinese, japan=japanese, germany=german=germans, france=french, brazil=brazilian=brazilians, canada=canadian=canadians, australia=australian=australians, pakistan=pakistani=pakistanis, russia=russian=russians, italy=italian=italians, spain=spanish, mexico=mexican=mexicans, norway=norwegian, sweden=swedish, denmark=danish, finland=finnish, poland, egypt=egyptian, nigeria=nigerian, kenya=kenyan, singapore, indonesia=indonesian, iran=iranian, iraq=iraqi, israel=israeli, greece=greek, ireland=irish, switzerland=swiss, austria=austrian, new zealand, south africa, saudi arabia, ukraine=ukrainian, vietnam=vietnamese, thailand=thai, argentina, chile, portugal=portuguese, nepal, bangladesh, sri lanka, philippines, malaysia, cuba, peru, colombia, hungary, romania, netherlands=dutch=holland, belgium, scotland=scottish, england, wales, syria, afghanistan, north korea, south korea, niger, slovakia, slovenia, iceland, ethiopia, ghana, morocco, algeria, libya, sudan, zimbabwe, zambia, uganda, tanzania, venezuela, ecuador, bolivia, uruguay, paraguay, mongolia, kazakhstan, turkey=turkish
language: english, spanish, french, german, japanese, chinese=mandarin, russian, arabic, italian, korean, hindi, portuguese, dutch, turkish, swedish, latin, greek, hebrew, bengali, urdu, tamil, telugu, polish, finnish, danish, norwegian
city: london, paris, new york=nyc, tokyo, berlin, mumbai=bombay, delhi, bangalore=bengaluru, chicago, toronto, sydney, rome, madrid, dubai, boston, seattle, chennai, kolkata, hyderabad, pune, los angeles, san francisco, moscow, istanbul, cairo, lagos, lisbon, vienna, amsterdam, dublin, denver, austin, miami, bangkok, hong kong, beijing, shanghai, melbourne, barcelona, munich, houston, dallas, atlanta, philadelphia
month: january, february, april, june, july, august, september, october, november, december
weekday: monday, tuesday, wednesday, thursday, friday, saturday, sunday
programming: python, java, javascript=js, ruby, golang, rust, kotlin, php, typescript, scala, perl, haskell, matlab, c++, c#, fortran, cobol, lua
framework: react, angular, vue, django, flask, rails, laravel, svelte, fastapi, bootstrap, jquery, tailwind, redux, zustand
database: mysql, postgresql=postgres, mongodb, redis, sqlite, cassandra, mariadb, dynamodb, elasticsearch
system: windows, linux=ubuntu, macos=mac, android, ios
cloud: aws, azure, gcp=google cloud, heroku, digitalocean
phone: iphone, samsung, oneplus, nokia, xiaomi, huawei, motorola, pixel
company: google, amazon, microsoft, apple, facebook, netflix, tesla, ibm, infosys, tcs, wipro, accenture, uber, airbnb, intel, walmart, starbucks, flipkart, nvidia, adobe, cisco, deloitte, snapdeal, cognizant, qualcomm
app: whatsapp, instagram, twitter, snapchat, youtube, gmail, linkedin, telegram, spotify, tinder, pinterest, reddit, skype, tiktok, discord, quora, facebook, messenger, tumblr, viber
planet: mars, venus, jupiter, saturn, neptune, uranus, pluto, moon, sun
religion: islam=muslim=muslims=islamic, christianity=christian=christians, hinduism=hindu=hindus, buddhism=buddhist=buddhists, judaism=jew=jews=jewish, sikhism=sikh=sikhs, jainism
element: iron, copper, hydrogen, oxygen, carbon, nitrogen, helium, uranium, sodium, calcium, zinc
sport: football, cricket, basketball, tennis, chess, badminton, golf, hockey, boxing, swimming, volleyball, baseball, rugby
animal: dog=dogs=puppy, cat=cats=kitten, horse=horses, rabbit=rabbits, hamster=hamsters, parrot=parrots, goldfish, turtle=turtles, snake=snakes, cow=cows, goat=goats, pig=pigs, lion=lions, tiger=tigers, elephant=elephants, wolf=wolves, monkey=monkeys, owl=owls, shark=sharks, whale=whales, snail=snails, lizard=lizards
instrument: guitar, piano, violin, drums, flute, cello, saxophone, ukulele, trumpet
engineering: mechanical, civil, electrical, chemical, aerospace, biomedical
exam: gre, gmat, sat, toefl, ielts, upsc, jee, gate, neet, mcat, lsat, cfa
color: red, blue, green, yellow, purple, pink, brown, grey=gray
season: summer, winter, spring, autumn
relative: mother=mom=mum, father=dad, brother, sister, wife, husband, son, daughter, grandmother, grandfather, girlfriend, boyfriend, uncle, aunt
people: men=man, women=woman
currency: dollar=dollars=usd=$, euro=euros=eur=€, yen=jpy, rupee=rupees=inr=₹, pesos, bitcoin, ethereum, gbp=£
when: today, tomorrow, yesterday
account: roth, traditional
"""  # noqa: E501 - a kind is a line
_WORD = re.compile(r"[a-z][a-z+#.]*[a-z+#]|[a-z]|[$€£₹]")


def _read(kinds: str) -> tuple[dict[str, tuple[tuple[str, str], ...]], frozenset[str]]:
    names: dict[str, tuple[tuple[str, str], ...]] = {}
    for line in kinds.strip().splitlines():
        kind, _, members = line.partition(": ")
        for member in members.split(","):
            same = [alias.strip() for alias in member.split("=")]
            for alias in same:
                names[alias] = (*names.get(alias, ()), (kind, same[0]))
    return names, frozenset(name.split()[0] for name in names if " " in name)


_NAMES, _FIRST_OF_TWO = _read(_KINDS)


def find_exchange(a: str, b: str) -> str | None:
    """Return which two of a kind stand against each other, where each text has one that the other lacks."""
    first, second = _entities(a), _entities(b)
    for kind, names in sorted(first.items()):
        others = second.get(kind, frozenset())
        only_a, only_b = names - others, others - names
        if only_a and only_b:
            return f"{min(only_a)} against {min(only_b)}"
    return None


@lru_cache(maxsize=4096)
def _entities(text: str) -> dict[str, frozenset[str]]:
    words = _WORD.findall(text.lower().replace("'s", " ").replace("\N{RIGHT SINGLE QUOTATION MARK}s", " "))
    found: dict[str, set[str]] = {}
    at = 0
    while at < len(words):
        pair = " ".join(words[at : at + 2])
        name = pair if words[at] in _FIRST_OF_TWO and pair in _NAMES else words[at]
        for kind, canonical in _NAMES.get(name, ()):
            found.setdefault(kind, set()).add(canonical)
        at += 2 if name is pair and name in _NAMES else 1
    return {kind: frozenset(names) for kind, names in found.items()}
