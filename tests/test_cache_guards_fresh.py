"""Pairs written before the guards that judge them: near misses by one word, its place or its case, and paraphrases."""

import pytest

from cache.semantic.guards import find_veto

# One answer never serves both. The two at a line's ends differ in: words asked about, prepositions, roles, time,
# degree, senses of synonyms, inflection, case.
NEAR_MISSES = """
what is 32 fahrenheit in celsius | what is -32 fahrenheit in celsius
what is 5 + 3 | what is -5 + 3
what is 5 mg in g | what is 5 Mg in g
how do you write sorry in arabic | how do you write hello in arabic
what is the swedish word for yes please | what is the swedish word for thanks
another word for really | another word for actually
what rhymes with do | what rhymes with done
is kindly an adverb | is somehow an adverb
how many syllables are in baked | how many syllables are in baking
correct my sentence: they was late | correct my sentence: they were late
which is right, a hour or an hour | which is right, an hour or hour
make this uppercase: hello paris | make this uppercase: Hello Paris
pronounce does | pronounce do
paraphrase: the dog bit the man | paraphrase: the man bit the dog
what is the past participle of is | what is the past participle of has
how do you spell cities | how do you spell city
what does hi mean in danish | what does ok mean in danish
put these in alphabetical order: is, has, do | put these in alphabetical order: do, is, has
what is the antonym of these | what is the antonym of those
is "their" a pronoun | is "there" a pronoun
proofread: we is happy | proofread: we are happy
what does this code print: a = b | what does this code print: b = a
what did marie curie die of | what did marie curie die for
who sat with the queen | who sat on the queen
can I travel with a green card | can I travel on a green card
who spoke to the witness | who spoke for the witness
how do I deal with stocks | how do I deal in stocks
what were monks paid for | what were monks paid by
who was arrested with al capone | who was arrested by al capone
is it rude to laugh at a clown | is it rude to laugh with a clown
what is a letter of credit | what is a letter on credit
who played for arsenal in 2003 | who played at arsenal in 2003
what should I ask for at a bank | what should I ask about at a bank
what is cricket played with | what is cricket played on
train oslo bergen | train bergen oslo
exchange rate euro dollar | exchange rate dollar euro
who is henry james | who is james henry
who is lucy's aunt | whose aunt is lucy
what hunts foxes | what foxes hunt
which company acquired slack | which company slack acquired
who painted picasso | who picasso painted
is lemon juice in water or water in lemon juice healthy | is water in lemon juice or lemon juice in water safe
does the knight protect the king | does the king protect the knight
where will the next olympics be | where was the next olympics
when did the concert begin | when will the concert begin
who leads the league | who led the league
what was the price of silver | what will be the price of silver
does she work at nasa | did she work at nasa
who has scored the most goals | who had scored the most goals
is the soup salty | is the soup too salty
who was the former mayor of york | who was the mayor of york
who was the first mayor of york | who was the mayor of york
what is the main cause of gout | what is the cause of gout
who is the current coach | who is the coach
is it only a sprain | is it a sprain
which used bikes are cheap | which bikes are cheap
what used furniture should I avoid | what furniture should I avoid
who lives with the pope | who lives like the pope
how do I start a fast safely | how do I start a quick safely
how long should a fast be | how long should a rapid be
who is my boss's boss | who is my chief's chief
what is a kid glove | what is a child glove
what does the border agency do | what does the neighbour agency do
how do I count cards | how do I number cards
what is a plus one | what is an add one
does big tobacco still exist | does large tobacco still exist
what is a write off | what is an author off
what is hard currency | what is hard money
what is sniping | what is snipping
who was griping | who was gripping
how does taping work | how does tapping work
what is a good look | what are good looks
what is a glass made of | what are glasses made of
how do I get an arm | how do I get arms
what is a custom in japan | what are customs in japan
is the shop open at 8 am | is the shop open at 8 pm
what is the best way to eat turkey | What is the best way to eat in Turkey?
what does china cost | What does China cost?
what will it do | what will IT do
how do I polish shoes | how do I find Polish shoes
how do I plan a march | how do I plan a March
where can I find a nice hotel | where can I find a Nice hotel
how do I log into reading | how do I log into Reading
is aids dangerous | is AIDS dangerous
what do vets do with sick cows | what do vets do about sick cows
who ran against lincoln | who ran for lincoln
how do I invest in gold | how do I invest for gold
what is the price of milk in spain | what is the price of milk from spain
is the store open on monday | is the store open by monday
which countries trade with iran | which countries trade for iran
how do I cook rice in a pan | how do I cook rice without a pan
what should a guest bring to a wedding | what should a wedding bring to a guest
do cats dislike dogs | do dogs dislike cats
how many goals did messi score against ronaldo | how many goals did ronaldo score against messi
which bank bought barclays | which bank barclays bought
whose teacher was plato | who was plato's teacher
what frightens horses | what horses frighten
lawyer client privilege | client lawyer privilege
house boat | boat house
guard dog training | dog guard training
did the train arrive | does the train arrive
who has been fired | who is fired
what time did dinner start | what time does dinner start
where did bees go | where do bees go
who was going to win | who is going to win
would it hurt | does it hurt
is coffee too strong | is coffee strong
is coffee still free | is coffee free
has he already left | has he left
is the museum also a church | is the museum a church
is the museum mostly empty | is the museum empty
is it almost full | is it full
what is a deputy minister | what is a minister
who is the acting director | who is the director
what is a light year | what is a year
how do I book a flight | how do I flight a book
is a hot dog a dog | is a dog a hot dog
how do I taper off | how do I tap off
what was he hiding | what was he hidden
which bakers bake | which baked bake
who is a cutter | who is cutting
what are woods | what is wood
where are the woods | where is the wood
what are your plans for us | what are your plans for US
what does it cost in bath | what does it cost in Bath
how far can I run in an hour | how far did I run in an hour
what is red hat | what is a hat red
what do people buy at ikea | what do people sell at ikea
how do I take off a jacket | how do I take a jacket
how do I give in | how do I give
how do I look up to my dad | how do I look to my dad
how do I make up a story | how do I make a story
how do I run into a friend | how do I run a friend
can I live on rice | can I live with rice
what did she stand for | what did she stand on
how do I call on a client | how do I call a client
what is a stand in | what is a stand
how do I pass out | how do I pass
what does a setter do | what does a setting do
add 5 to 10 | add 10 to 5 people
who is he to me | who am I to him
what happened to her | what happened to him
why did they leave | why did we leave
what did his boss say | what did her boss say
are these safe | are those safe
which of these is bigger | which of them is bigger
how long is it | how long was it
"""

PARAPHRASES = """
What is the capital of Peru? | Tell me the capital city of Peru
capital of norway | What is Norway's capital?
what's norway's capital | What is the capital of Norway?
What is the currency of Chile? | Which currency is used in Chile?
Which languages are spoken in Chad? | What language do people speak in Chad?
Who wrote Dracula? | Who is the author of Dracula?
What is 8 km in miles? | Convert 8 km to miles
5 km in metres | 5 km to metres
how many pounds are in 3 kg | convert 3 kg to pounds
What is 6 times 7? | how much is 6 x 7
What is 20 divided by 4? | 20 / 4
What is the chemical symbol of iron? | What is the symbol for iron?
What does Fe stand for? | what does fe stand for
Could you tell me how to boil an egg? | How do I boil an egg?
How do I boil eggs? | how can I boil eggs?
Please explain photosynthesis. | Explain photosynthesis
Which countries border Laos? | Name the neighbours of Laos
Does Spain border Portugal? | Is Spain next to Portugal?
What is the atomic number of zinc? | Zinc's atomic number?
On which continent is Mali? | Which continent is Mali in?
When was Mozart born? | when was mozart born
What is the population of Cuba? | population of cuba
What is the tallest mountain in Japan? | what's Japan's tallest mountain
Why is the sky blue? | Can you tell me why the sky is blue?
How tall is the Eiffel Tower? | What is the height of the Eiffel Tower?
What is the difference between a frog and a toad? | How do frogs and toads differ?
How do I delete a git branch? | How can I remove a git branch?
how do i sort a list in python | In Python, how do I sort a list?
How do I kill a process in Linux? | Hi! How do I kill a process in Linux? Thanks
What is the boiling point of water? | Water's boiling point?
"""


def read_pairs(table: str) -> list[list[str]]:
    """Return the two texts of each line."""
    return [line.split(" | ") for line in table.strip().splitlines()]


@pytest.mark.parametrize(("a", "b"), read_pairs(NEAR_MISSES))
def test_a_fresh_near_miss_is_vetoed(a, b):
    """The pair is refused in both orders."""
    assert find_veto(a, b) is not None
    assert find_veto(b, a) is not None


@pytest.mark.parametrize(("a", "b"), read_pairs(PARAPHRASES))
def test_a_fresh_paraphrase_passes(a, b):
    """One answer serves both, whichever was asked first."""
    assert find_veto(a, b) is None
    assert find_veto(b, a) is None
