"""The words that the guards know: English function words, numbers, units, opposites, synonyms. Data, no decisions.

Every list errs on the side of a miss: a word that is not here is content, and content must be the same in both texts.
"""


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(lines: str) -> dict[str, list[tuple[str, ...]]]:
    """Read phrases, one a line or split by semicolons, into first word -> phrases, the longest first."""
    phrases: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted(lines.strip().replace("\n", ";").split(";"), key=len, reverse=True):
        words = tuple(phrase.split())
        phrases.setdefault(words[0], []).append(words)
    return phrases


def _table(lines: str) -> dict[str, str]:
    """Read lines of `canonical: alias alias …` into alias -> canonical; the canonical word stands for itself."""
    table: dict[str, str] = {}
    for line in lines.strip().splitlines():
        canonical, _, aliases = line.partition(":")
        table[canonical.strip()] = canonical.strip()
        table.update(dict.fromkeys(aliases.split(), canonical.strip()))
    return table


# No content of their own. Not here, because they have some: more less up down off out before after above below over.
FUNCTION_WORDS = frozenset(
    _words("""
    a an the this that these those there here it its it's they them their theirs we our ours you your yours i my
    mine me us am is are was were be been being do does did done doing has have had having will would shall 'd
    've 'll 're 'm 's and or but if then so as at by for from in into of on onto to toward towards with about
    via per than such also too between what which whom whose
    """)
)

# What people wrap around a question. None of it changes the answer.
COURTESY_WORDS = frozenset(
    _words("""
    please kindly thanks thank hi hello hey ok okay dear sir exactly actually really literally indeed just
    simply basically honestly truly definitely certainly specifically somehow current currently located situated
    appear appears seem seems kind sort one
    """)
)
# What opens a request instead of a question word; anywhere else it is content.
IMPERATIVES = frozenset(_words("tell show give explain describe name say mention state list provide find"))
# What only links a noun to its owner, where `what` or `which` asks for the noun: the currency that Japan uses.
LINKING_WORDS = frozenset(_words("use used uses using lie lies belong belongs possess possesses people found"))

# Whole phrases, taken out before single words are judged; the longest first.
COURTESY_PHRASES = _phrases("""
do you know; do you happen to know; could you tell me; can you tell me; would you tell me; will you tell me; tell me
can you please tell me; could you please tell me; can you; could you; would you; will you; would you mind; i wonder
i was wondering; i am wondering; i want to know; i need to know; i would like to know; i 'd like to know; let me know
i want to; i need to; i 'd like to; i would like to; help me understand; help me find; help me; give me; show me
walk me through; remind me; i have a question; if i may ask; may i ask; any idea; have any idea; do you have any idea
i am curious; i 'm curious; just curious; curious; so kind; in fact; by the way; is it possible to know
sorry if this is basic; quick one; quick question; thank you; thanks a lot; good morning; good afternoon; good evening
what do you call; what do we call; the name of; from one another; from each other; one another; each other
""")

NEGATIONS = frozenset(
    _words("""
    not no never without cannot neither nor none nobody nothing nowhere except excluding hardly barely dont
    doesnt didnt isnt arent wasnt werent cant couldnt wont wouldnt shouldnt hasnt havent hadnt aint n't
    """)
)

# Where one of these stands the question is about words or a text: then every word counts, and every letter of it.
WORDING_WORDS = frozenset(
    _words("""
    say says saying translate translates translated translation translating spell spells spelled spelt spelling
    pronounce pronounced pronunciation synonym synonyms antonym antonyms opposite opposites homonym homophone rhyme
    rhymes rhyming word words wording phrase phrases phrasing sentence sentences paraphrase rephrase reword rewrite
    summarise summarize summary shorten proofread correct corrected correction grammar grammatical grammatically typo
    typos tense tenses plural plurals singular participle gerund infinitive conjugate conjugated conjugation decline
    declension noun nouns verb verbs adverb adverbs adjective adjectives pronoun pronouns preposition prepositions
    conjunction conjunctions interjection prefix suffix idiom slang mean means meaning meanings definition definitions
    define defined abbreviation abbreviations abbreviate acronym acronyms letter letters syllable syllables vowel vowels
    consonant consonants character characters spaces capitalise capitalize capitalised capitalized capitalisation
    capitalization uppercase lowercase hyphen hyphens hyphenate apostrophe comma commas punctuation punctuate
    alphabetical alphabetically anagram anagrams palindrome palindromes reverse reversed quote quotation code snippet
    regex
    """)
)

AUXILIARIES = frozenset(
    _words("is are was were am do does did has have had can could should will would may might must shall")
)
DO_FORMS = frozenset(_words("do does did done"))
PAST = frozenset(_words("was were did had"))
PRESENT = frozenset(_words("is are am do does has have"))

# How a question word asks, as a content token; `what` and `which` ask nothing beyond their noun.
QUESTION_WORDS = {
    "who": "@who",
    "whom": "@who",
    "when": "@when",
    "where": "@where",
    "why": "@why",
    "how": "@how",
    "what": "",
    "which": "",
    "whose": "@who",
    "wat": "",
}
# Nouns that ask like a question word when `what` or `which` stands with them, or nothing does.
ASKING_NOUNS = _table("""
@why: reason reasons cause causes
@how: way ways process procedure method steps
@where: location
@when: date year
""")
# Left at the end of a question, these are what it asks: where is she from, what is it for.
ASKING_ENDS = frozenset(_words("from for about of with by like do done have has had"))
FIRST_PERSON = frozenset(_words("i me my mine we us our ours"))
SECOND_PERSON = frozenset(_words("you your yours"))
# "How do I", "how can you", "how should one": nobody in particular.
GENERIC_AFTER = frozenset(_words("do can could should would may might must did to"))
MEASURES = {
    "many": "count",
    "much": "amount",
    "long": "length",
    "far": "distance",
    "old": "age",
    "tall": "height",
    "high": "height",
    "big": "size",
    "large": "size",
    "often": "frequency",
    "fast": "speed",
    "heavy": "weight",
    "deep": "depth",
    "wide": "width",
}

CARDINALS = {
    word: value
    for value, word in enumerate(
        _words("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
    """)
    )
} | {word: 10 * value for value, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)}
MULTIPLIERS = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
WORD_NUMBERS = {"dozen": "12", "half": "0.5", "twice": "2", "double": "2", "triple": "3"}
ORDINALS = {
    word: str(value)
    for value, word in enumerate(
        _words("""
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
    fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
    """),
        1,
    )
}

UNITS = _table("""
kilometre: km kms kilometer kilometers kilometres
metre: meter meters metres
centimetre: cm cms centimeter centimeters centimetres
millimetre: mm millimeter millimeters millimetres
mile: mi miles
yard: yd yds yards
foot: ft feet
inch: inches
kilogram: kg kgs kilo kilos kilograms kilogramme kilogrammes
gram: grams gramme grammes
milligram: mg milligrams
tonne: tonnes
ton: tons
pound: lb lbs pounds
ounce: oz ounces
stone: stones
litre: liter liters litres
millilitre: ml milliliter milliliters millilitres
gallon: gal gallons
pint: pints
quart: quarts
cup: cups
tablespoon: tbsp tablespoons
teaspoon: tsp teaspoons
celsius: centigrade °c ℃
fahrenheit: °f ℉
kelvin: kelvins
millisecond: ms milliseconds
second: sec secs seconds
minute: min mins minutes
hour: hr hrs hours
day: days
week: weeks
month: months
year: yr yrs years
byte: bytes
kilobyte: kb kilobytes
megabyte: mb megabytes
gigabyte: gb gigabytes
terabyte: tb terabytes
megabit: mbit megabits
gigabit: gbit gigabits
megabit-per-second: mbps
gigabit-per-second: gbps
mile-per-hour: mph
kilometre-per-hour: kmh kph
watt: watts
kilowatt: kw kilowatts
joule: joules
calorie: cal calories
kilocalorie: kcal
volt: volts
percent: % percentage pct
dollar: $ usd dollars bucks
euro: € eur euros
pound-sterling: £ gbp
yen: ¥ jpy
acre: acres
hectare: ha hectares
hertz: hz
kilohertz: khz
megahertz: mhz
gigahertz: ghz
""")
# Too short to be a unit unless they stand at a number, or where a conversion names its target.
SHORT_UNITS = {
    "m": "metre",
    "g": "gram",
    "l": "litre",
    "c": "celsius",
    "f": "fahrenheit",
    "s": "second",
    "h": "hour",
    "t": "tonne",
    "in": "inch",
    "b": "byte",
    "v": "volt",
    "w": "watt",
    "am": "am",
    "pm": "pm",
}
# Where the case of a letter is the difference.
CASED_UNITS = {"Mb": "megabit", "Gb": "gigabit", "Kb": "kilobit", "kb": "kilobyte", "K": "kelvin"}
MAGNITUDES = {"k": 10**3, "m": 10**6, "bn": 10**9}

# A word of the left against its word of the right is another question, whatever the rest says.
OPPOSITES = [
    tuple(pair.split("/"))
    for pair in _words("""
    enable/disable enabled/disabled and/or increase/decrease increasing/decreasing open/close opened/closed on/off
    in/out up/down before/after above/below over/under inside/outside left/right more/less most/least first/last
    next/last next/previous start/stop begin/end north/south east/west northern/southern eastern/western min/max
    minimum/maximum highest/lowest higher/lower high/low largest/smallest larger/smaller biggest/smallest
    bigger/smaller oldest/newest oldest/youngest older/newer older/younger longest/shortest longer/shorter
    long/short tallest/shortest best/worst better/worse fastest/slowest faster/slower fast/slow heavier/lighter
    earliest/latest earlier/later early/late hot/cold wet/dry humid/dry hard/easy upper/lower
    ascending/descending odd/even positive/negative active/passive buy/sell buying/selling deposit/withdraw
    borrow/lend borrowing/lending call/put debit/credit gross/net cash/margin gain/lose gain/loss profit/loss
    win/lose raise/lower rise/fall heat/cool melt/freeze freeze/thaw push/pull add/remove add/subtract
    plus/minus multiply/divide install/uninstall connect/disconnect lock/unlock create/delete insert/delete
    show/hide send/receive upload/download import/export encode/decode encrypt/decrypt input/output
    compress/decompress read/write allow/deny allow/block accept/reject accept/decline arrive/depart
    arrival/departure advantages/disadvantages advantage/disadvantage pros/cons public/private true/false
    legal/illegal safe/dangerous possible/impossible fixed/variable client/server parent/child acid/base
    question/answer love/hate today/tomorrow today/yesterday yesterday/tomorrow morning/evening day/night
    summer/winter male/female he/she him/her his/her husband/wife mother/father son/daughter brother/sister
    king/queen
    """)
]

# Words that ask for the same. Short on purpose: each line is a claim that the two may always be exchanged.
SYNONYMS = _table("""
difference: differ differs different
neighbour: neighbor neighbors neighbours border borders bordering neighbouring neighboring
currency: money currencies
author: wrote written writes write writer
purchase: buy buying bought
delete: remove removing deleting erase
begin: start starts
film: movie movies films
car: automobile cars
quick: fast rapid
child: kid kids children
maximum: max
minimum: min
color: colour colours colors
language: speak spoken speaks languages
count: number
@where: location
large: big
plus: add added sum adding +
minus: subtract subtracted -
times: multiply multiplied product x \N{MULTIPLICATION SIGN} * multiplying
divided: divide ÷ / dividing quotient
favorite: favourite
organize: organise
center: centre
unit-convert: convert conversion converted
take: took taken
give: gave given
make: made makes making
know: knew known
see: saw seen
win: won winning
find: found
build: built
break: broke broken
choose: chose chosen
drive: drove driven
eat: ate eaten
fall: fell fallen
fly: flew flown
grow: grew grown
hold: held
keep: kept
leave: left
lose: lost
mean: meant
run: ran running
sell: sold
send: sent
steal: stole stolen
teach: taught
think: thought
throw: threw thrown
understand: understood
wear: wore worn
""")

# What a noun already says: beside it these words add nothing.
IMPLIED = {
    "capital": frozenset({"city"}),
    "language": frozenset({"official", "main"}),
    "currency": frozenset({"official", "pay", "country"}),
    "symbol": frozenset({"chemical", "element"}),
    "neighbour": frozenset({"country", "nation", "share"}),
    "continent": frozenset({"part"}),
    "element": frozenset({"chemical", "atomic"}),
    "difference": frozenset({"@how"}),
}
# What a conversion already says: a quantity and a unit, or two units, stand in the text.
CONVERSION_WORDS = frozenset(_words("unit-convert count amount equal equals equivalent make worth express change"))
# What a sum already says.
ARITHMETIC = frozenset(_words("plus minus times divided"))
ARITHMETIC_WORDS = frozenset(_words("equal equals amount get gets calculate compute result make"))
# What adds nothing beside two words of content: the symbol that zinc has; alone, what zinc has is another question.
WEAK_WORDS = frozenset(_words("have has had called named"))
# Two words that stand for one.
PAIRS = {("next", "to"): "neighbour", ("take", "away"): "minus"}

# Joins equals: what stands on its sides may change places.
SYMMETRIC_WORDS = frozenset(
    _words("""
    and or vs versus between both difference differ differs different compare compared comparison plus times
    multiply multiplied product sum add added + x * x border borders neighbour neighbours neighbor neighbors
    married related connected similar same equal distance nor together
    """)
)
FORWARD_WORDS = frozenset(_words("to into onto toward towards than → -> => ⇒"))
BACKWARD_WORDS = frozenset({"from"})
# The same word after one of these, in the other text after its counterpart, plays the opposite part.
PART_CONFLICTS = (
    ("to", "from"),
    ("into", "from"),
    ("by", "about"),
    ("by", "for"),
    ("with", "against"),
    ("for", "against"),
)
