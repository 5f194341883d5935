"""Pairs written before the guards that judge them: near misses by one word, its place or its case, and paraphrases."""

import pytest

from cache.semantic.guards import find_veto
from tests.test_cache_guards import read_table

# One answer never serves both. The two at a line's ends differ in: words asked about, prepositions, roles, time,
# degree, senses of synonyms, inflection, case.
NEAR_MISSES = """
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


@pytest.mark.parametrize(("_", "a", "b"), read_table(NEAR_MISSES))
def test_a_fresh_near_miss_is_vetoed(_, a, b):
    """The pair is refused in both orders."""
    assert find_veto(a, b) is not None
    assert find_veto(b, a) is not None


@pytest.mark.parametrize(("_", "a", "b"), read_table(PARAPHRASES))
def test_a_fresh_paraphrase_passes(_, a, b):
    """One answer serves both, whichever was asked first."""
    assert find_veto(a, b) is None
    assert find_veto(b, a) is None
