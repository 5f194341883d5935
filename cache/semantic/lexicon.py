"""The words that the guards know: English function words, opposites, synonyms. Data, no decisions.

Every list errs on the side of a miss: a word that is not here is content, and content must be the same in both texts.
"""

from cache.semantic.wordlists import read_phrases, read_table, read_words

# No content of their own. Not here, because they have some: more less up down off out before after above below over.
FUNCTION_WORDS = frozenset(
    read_words("""
    a an the this that these those there here it its it's they them their theirs we our ours you your yours i my
    mine me us am is are was were be been being do does did done doing has have had having will would shall 'd
    've 'll 're 'm 's and or but if then as at by for from in into of on onto to toward towards with about
    via per than such between what which whom whose
    """)
)

# What people wrap around a question. None of it changes the answer.
COURTESY_WORDS = frozenset(
    read_words("""
    please kindly thanks thank hi hello hey ok okay sir indeed currently located situated actually really literally
    honestly truly definitely certainly somehow
    """)
)
# What only stresses a question, and yet limits a statement: what exactly is a cold, is it just a cold.
STRESS_WORDS = frozenset(read_words("exactly just simply basically specifically"))
# What opens a request instead of a question word; anywhere else it is content.
IMPERATIVES = frozenset(read_words("tell show give explain describe name say mention state list provide find"))
# What only links a noun to its owner, where `what` or `which` asks for the noun: the currency that Japan uses.
LINKING_WORDS = frozenset(read_words("use used uses using lie lies people"))

# Whole phrases, taken out before single words are judged; the longest first.
COURTESY_PHRASES = read_phrases("""
do you know; do you happen to know; could you tell me; can you tell me; would you tell me; will you tell me; tell me
can you please tell me; could you please tell me; can you; could you; would you; will you; would you mind; i wonder
i was wondering; i am wondering; i want to know; i need to know; i would like to know; i 'd like to know; let me know
i want to; i need to; i 'd like to; i would like to; help me understand; help me find; help me; give me; show me
walk me through; remind me; i have a question; if i may ask; may i ask; any idea; have any idea; do you have any idea
i am curious; i 'm curious; just curious; curious; so kind; in fact; by the way; is it possible to know
sorry if this is basic; quick one; quick question; thank you; thanks a lot; good morning; good afternoon; good evening
what do you call; what do we call; the name of; from one another; from each other; one another; each other
""")

# What looks like a form of another word and has a sense of its own.
FORMS_APART = frozenset(
    read_words("""
    news arms spirits looks savings customs goods glasses clothes cloths means manners scales works brains pains
    forces grounds premises proceeds damages spectacles stairs quarters remains airs lies notes
    returns shorts trunks odds outskirts thanks regards wits honours terms stocks blues greens oils wings
    mathematics physics politics economics founded founding wounded leading mating meaning housing grounded building
    """)
)

NEGATIONS = frozenset(
    read_words("""
    not no never without cannot neither nor none nobody nothing nowhere except excluding hardly barely dont
    doesnt didnt isnt arent wasnt werent cant couldnt wont wouldnt shouldnt hasnt havent hadnt aint n't
    """)
)

# Where one of these stands the question is about words or a text: then every word counts, and every letter of it.
WORDING_WORDS = frozenset(
    read_words("""
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
    read_words("is are was were am do does did has have had can could should will would may might must shall")
)
DO_FORMS = frozenset(read_words("do does did done"))
# When something is, told by an auxiliary. Where none of these stands, it is now.
TIMES = read_table("""
past: was were did had
future: will 'll shall gonna
conditional: would 'd
continuing: being
""")
# The same, told by the verb itself where no auxiliary stands; or, after has and have, what is done with.
PAST_VERBS = frozenset(
    read_words("""
    beat became began bit blew bought broke brought built came caught chose cost cut died drew drank drove ate fell
    fed felt fought flew forgot froze gave got grew heard held hid hit kept knew laid led left lent lost made met paid
    ran rode rose said sang sank sat saw sent shot slept sold spent spoke spread stole stood struck swam taught
    threw told took went woke won wore been begun bitten blown broken chosen done drawn driven drunk eaten fallen
    flown forgotten frozen given gone grown hidden known ridden risen seen spoken stolen swum sung taken thrown woken
    worn
    """)
)

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
    "whose": "@whose",
    "wat": "",
}
# Nouns that ask like a question word when `what` or `which` stands with them, or nothing does.
ASKING_NOUNS = read_table("""
@why: reason reasons cause causes
@how: way ways process procedure method steps
@where: location
@when: date year
""")
# Left at the end of a question, these are what it asks: where is she from, what is it for.
ASKING_ENDS = frozenset(read_words("from for about of with by like in on at into to do done have has had"))
FIRST_PERSON = frozenset(read_words("i me my mine we us our ours"))
SECOND_PERSON = frozenset(read_words("you your yours"))
# "How do I", "how can you", "how should one": nobody in particular.
GENERIC_AFTER = frozenset(read_words("do can could should would may might must did to"))
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

# A word of the left against its word of the right is another question, whatever the rest says.
OPPOSITES = [
    tuple(pair.split("/"))
    for pair in read_words("""
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
    king/queen main/official these/those these/them those/them this/those they/we their/our them/us
    """)
]

# Words that ask for the same. Short on purpose: each line is a claim that the two may always be exchanged.
SYNONYMS = read_table("""
difference: differ differs different
neighbour: neighbor neighbors neighbours neighbouring neighboring
purchase: buy buying bought
delete: remove removing deleting erase
begin: start starts began begun started
maximum: max
minimum: min
color: colour colours colors
car: automobile cars
child: children
film: films
@where: location
minus: -
plus: +
times: x \N{MULTIPLICATION SIGN} *
divided: ÷ /
favorite: favourite
organize: organise
center: centre
unit-convert: convert conversion converted
take: took taken
give: gave given
make: made makes making
know: knew known
see: seen
win: won winning
break: broke broken
choose: chose chosen
drive: drove driven
eat: ate eaten
fall: fell fallen
fly: flew flown
grow: grew grown
hold: held
keep: kept
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
write: wrote written writes writing
""")
# More of them, that hold only among numbers: add people to a group.
SYNONYMS_IN_SUMS = read_table("""
plus: add added sum adding
minus: subtract subtracted takeaway
times: multiply multiplied product multiplying
divided: divide dividing quotient
""")
# And only where who is asked for: what is a write off.
SYNONYMS_OF_PERSONS = read_table("author: wrote written writer")
# And only of what is asked for: which money, hard currency; which language do they speak, how do I speak to her.
SYNONYMS_OF_SUBJECTS = read_table("""
currency: money
language: speak spoken speaks languages
neighbour: border borders bordering
""")

# What a noun already says: beside it these words add nothing.
IMPLIED = {
    "capital": frozenset({"city"}),
    "language": frozenset({"official", "main", "in"}),
    "currency": frozenset({"pay", "country", "in", "with"}),
    "symbol": frozenset({"chemical", "element"}),
    "neighbour": frozenset({"country", "nation", "share", "with", "to", "on"}),
    "continent": frozenset({"part", "in", "on", "to"}),
    "element": frozenset({"chemical", "atomic"}),
    "difference": frozenset({"@how"}),
}
# What a conversion already says: a quantity and a unit, or two units, stand in the text.
CONVERSION_WORDS = frozenset(read_words("unit-convert count amount equal equals equivalent make worth express change"))
# What a sum already says.
ARITHMETIC = frozenset(read_words("plus minus times divided"))
ARITHMETIC_WORDS = frozenset(read_words("equal equals amount get gets calculate compute result make"))
# What adds nothing beside two words of content: the symbol that zinc has; alone, what zinc has is another question.
WEAK_WORDS = frozenset(read_words("have has had called named"))
# Two words that stand for one.
PAIRS = {("next", "to"): "neighbour"}

# Joins equals: what stands on its sides may change places.
SYMMETRIC_WORDS = frozenset(
    read_words("""
    and or vs versus between both difference differ differs different compare compared comparison plus times
    multiply multiplied product sum add added + x * x border borders neighbour neighbours neighbor neighbors
    married related connected similar same equal distance nor together engaged friends dating siblings cousins
    """)
)
# Where one of these stands among the content words, the order of the others says nothing.
SYMMETRIC_RELATIONS = frozenset(
    read_words("""
    difference neighbour vs versus compare compared comparison married related connected similar same equal distance
    together plus times
    """)
)
FORWARD_WORDS = frozenset(read_words("to into onto toward towards than → -> => ⇒"))
BACKWARD_WORDS = frozenset({"from"})
# How parts are joined. Where each text has one that the other lacks, they say different things of the same parts.
JOINING_WORDS = frozenset(
    read_words("""
    as at by for from in into of on onto to toward towards with without about via per than like and or but if then so
    """)
)
# Those that also count where the other text has none: who is with the president. "Of" and "to" may be left unsaid.
STRONG_JOINING_WORDS = JOINING_WORDS - {"of", "to"}
# Nouns whose owner may be named in many ways: the capital of France, France's capital, in France the capital.
ATTRIBUTES = frozenset(
    read_words("capital currency language continent symbol neighbour population area element number atomic")
)
ATTRIBUTE_JOINING_WORDS = frozenset(read_words("of in for on to"))
# In capitals these are something else: a name, a month, a place.
CASED_WORDS = frozenset(
    read_words("""
    polish turkey china march may august nice reading mobile bath job aids guinea mark bill rose lima cork hull rugby
    will who us it jersey grace faith hope frank jack bob art iris dick pat sue drew mercury mars earth
    """)
)
