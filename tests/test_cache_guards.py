"""The guards: what may never be served for something else, and what still may."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache.semantic.guards import MAX_TEXT_CHARS, find_veto
from cache.semantic.inflection import is_near
from cache.semantic.reading import read
from cache.semantic.tokens import tokenise

NEAR_MISSES = """
numbers: convert 5 km to miles | convert 50 km to miles
numbers: how far is 5 km | how far is 5 mi
numbers: what is 1,000 m in km | what is 1.000 m in km
numbers: what is 1.5 km in m | what is 15 km in m
numbers: what is \N{ARABIC-INDIC DIGIT FIVE} km in miles | what is 6 km in miles
numbers: who was the second president of france | who was the first president of france
numbers: what is new in python 3.1 | what is new in python 3.10
numbers: give me five tips for lisbon | give me fifteen tips for lisbon
numbers: is it 5 am in tokyo | is it 5 pm in tokyo
numbers: save 100k in ten years | save 100 in ten years
numbers: convert 10 Mb to bits | convert 10 MB to bits
negation: which foods should i eat | which foods shouldn't i eat
negation: is paris not the capital of france | is paris the capital of france
negation: how do i set up ci | how do i set up ci without docker
negation: can't i pay by card | can i pay by card
negation: countries that border france but not spain | countries that border spain but not france
opposites: how do i enable logging | how do i disable logging
opposites: how do i turn wifi on | how do i turn wifi off
opposites: is it safe to eat before noon | is it safe to eat after noon
opposites: should i buy tesla | should i sell tesla
opposites: capital of north korea | capital of south korea
opposites: what is the highest mountain | what is the lowest mountain
opposites: what is my realized gain | what is my unrealized gain
opposites: does he love ann | does she love ann
opposites: is my dog ill today | is your dog ill today
names: What is the capital of Austria? | What is the capital of Australia?
names: What is the capital of Niger? | What is the capital of Nigeria?
names: How do I translate "cat"? | How do I translate "dog"?
names: What is in the US budget? | What is in the UK budget?
direction: convert km to miles | convert miles to km
direction: how many miles in a km | how many km in a mile
direction: what is a mile in km | what is a km in miles
direction: flights to paris from london | flights to london from paris
direction: how do i convert a json string to a python dict | how do i convert a python dict to a json string
direction: Is Postgres better than MySQL? | Is MySQL better than Postgres?
direction: trains from paris | trains to paris
joining: books by einstein | books about einstein
direction: what is 7 minus 3 | what is 3 minus 7
direction: what is 10 divided by 2 | what is 2 divided by 10
direction: does a dog chase a cat | does a cat chase a dog
direction: who did john hit | who hit john
direction: is paris in france | is france in paris
direction: Did Hannah keep the school? | Was Hannah kept by the school?
direction: how do i roll my 401(k) over to an ira | how do i roll my ira over to a 401(k)
time: who is the president of france | who was the president of france
content: what is the capital of austria | what is the capital of australia
content: what is the capital of niger | what is the capital of nigeria
content: capital of guinea | capital of equatorial guinea
content: where is kenya | what is kenya
content: when was einstein born | where was einstein born
content: why does water boil at 100 c | does water boil at 100 c
content: what is gold | what is gold used for
content: where is einstein | where is einstein from
content: how many neighbours does france have | name the neighbours of france
content: who is mercury | what is mercury
content: should i visit rome | can i visit rome
content: what is c++ | what is c#
content: what is the == operator | what is the === operator
content: how old is obama | how tall is obama
content: how do i deploy a rails app | how do i deploy a rails app on heroku
content: write a haiku about the ocean | write a sonnet about the ocean
content: what is that | who are they
content: what are clothes made of | what are cloths made of
content: what is striping | what is stripping
content: what is a spirit | what are spirits
content: how to break a fast | how to break quick
content: who are the big five | who are the large five
content: what used car should i buy | what car should i buy
content: is he too old to play | is he old to play
content: who is john's father | whose father is john
order: flight boston denver | flight denver boston
order: who is james dean | who is dean james
time: when will the shop open | when did the shop open
time: who won the cup | who wins the cup
time: what has happened in egypt | what happens in egypt
joining: who was killed by caesar | who was killed with caesar
joining: is it safe to sleep in a car | is it safe to sleep on a car
wording: how do you say hello in french | how do you say thanks in french
wording: capitalise: paris | capitalise: Paris
wording: how many letters are in dog | how many letters are in dogs
wording: when to use a | when to use an
"""

PARAPHRASES = """
What is the capital of France? | Tell me the capital city of France
What's the capital of France? | capital of france
What is France's capital? | Can you tell me what the capital of France is?
Whats the capital of france | WHAT IS THE CAPITAL OF FRANCE?
What is 5 km in miles? | Convert 5 kilometres to miles
What is 5 km in miles? | How many miles are in five kilometers?
how many grams in a kilogram | how many grams are there in one kilogram
what is 1,000 m in km | what is 1000 metres in kilometers
What is the difference between TCP and UDP? | How do UDP and TCP differ?
In Python, how do I sort a dictionary by value? | How do I sort a dictionary by value in Python?
What currency is used in Japan? | Which currency does Japan use?
What language do people speak in Brazil? | What is the official language of Brazil?
Which continent is Kenya in? | On what continent does Kenya lie?
Which countries border Zambia? | Could you list Zambia's neighbours?
What is 12 + 30? | how much is 12 plus 30
What is 14 - 5? | 14 minus 5
Is Robert a nurse or an actor? | Is Robert an actor or a nurse?
Did Hannah keep the school? | Was the school kept by Hannah?
Hi, could you please tell me how to kill a process? Thanks! | How do I kill a process?
Who wrote Hamlet? | Who is the author of Hamlet?
Why shouldn't I eat snow? | Why should I not eat snow?
"""


def read_table(table: str) -> list[tuple[str, str, str]]:
    """Return (guard, a, b) of each line; the guard is empty where the line names none."""
    rows = []
    for line in table.strip().splitlines():
        guard, colon, pair = line.partition(": ")
        a, _, b = (pair if colon else line).partition(" | ")
        rows.append((guard if colon else "", a, b))
    return rows


@pytest.mark.parametrize(("guard", "a", "b"), read_table(NEAR_MISSES))
def test_a_near_miss_is_vetoed_by_the_guard_for_its_kind(guard, a, b):
    """The pair is refused in both orders, with a reason, also in lower case, in capitals and as a question."""
    for x, y in ((a, b), (b, a)):
        veto = find_veto(x, y)
        assert veto is not None
        assert (veto.guard, veto.reason != "") == (guard, True)
    assert find_veto(f"{a[0].upper()}{a[1:]}?", f"{b[0].upper()}{b[1:]}?") is not None
    if "Mb" not in a and a.lower() != b.lower():
        assert find_veto(a.lower(), b.lower()) is not None
        assert find_veto(a.upper(), b.upper()) is not None


@pytest.mark.parametrize(
    ("lower", "upper"),
    [("polish food", "Polish food"), ("how to cook turkey", "how to cook in Turkey"), ("what is who", "what is WHO")],
)
def test_a_word_that_is_a_name_in_capitals_is_not_that_name(lower, upper):
    """Here alone the case of a letter is the difference."""
    assert find_veto(lower, upper) is not None
    assert find_veto(upper, lower) is not None


@pytest.mark.parametrize(("_", "a", "b"), read_table(PARAPHRASES))
def test_a_paraphrase_passes_all_guards(_, a, b):
    """One answer serves both, whichever was asked first."""
    assert find_veto(a, b) is None
    assert find_veto(b, a) is None


WORDS = """
what who how many is was does not can't from to in than by the a of 5 km 50 miles 1,000 one hundred first second Paris
paris france's US us "quoted" `code` http://a.b/c C++ == - / ? . ! enable disable have used for next take away convert
plus minus difference and or I my your capital city
"""
TEXTS = st.text(max_size=80) | st.lists(st.sampled_from(WORDS.split()), max_size=14).map(" ".join)


@example("a from b", "b from a from b")
@given(TEXTS, TEXTS)
def test_the_verdict_does_not_depend_on_the_order(a, b):
    """Nothing that can be typed makes a guard fail, and who asked first makes no difference."""
    assert (find_veto(a, b) is None) == (find_veto(b, a) is None)


@given(TEXTS)
def test_a_text_always_matches_itself(text):
    """Space around a text, and the text itself, are no difference."""
    assert find_veto(text, text) is None
    assert find_veto(text, f" {text} ") is None


@pytest.mark.parametrize(
    ("text", "quantities"),
    [
        ("5km", {("5", "kilometre")}),
        ("5 kilometers and 5 km", {("5", "kilometre")}),
        ("twenty one euros", {("21", "euro")}),
        ("two hundred and five", {("200", None), ("5", None)}),
        ("three million dollars", {("3000000", "dollar")}),
        ("$5 or 5 usd", {("5", "dollar")}),
        ("100k", {("100000", None)}),
        ("the 3rd or third", {("3th", None)}),
        ("350°F, 350 degrees fahrenheit", {("350", "fahrenheit")}),
        ("a mile, one mile", set()),
        ("1 + 1", {("1", None)}),
        ("5 in a row", {("5", None)}),
        ("python3 and h2o", set()),
    ],
)
def test_quantities_are_read_with_their_units(text, quantities):
    """However a number and a unit are written, they are one canonical pair."""
    assert set(read(text).quantities) == quantities


def test_contractions_are_spelt_out():
    """The forms of "not" and of "is" are words of their own."""
    assert [t.word for t in tokenise("Can't, won't, isn\N{RIGHT SINGLE QUOTATION MARK}t; what's John's")] == (
        ["can", "not", "will", "not", "is", "not", "what", "is", "john", "'s"]
    )


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("country", "countries", True),
        ("baking", "bake", True),
        ("stopped", "stopping", True),
        ("deployed", "deploying", True),
        ("austria", "australia", False),
        ("niger", "nigeria", False),
        ("new", "news", False),
        ("plan", "plane", False),
        ("gas", "ga", False),
    ],
)
def test_only_inflections_of_one_word_are_near(a, b, near):
    """A shared stem counts where it is an ending's, never where it is chance."""
    assert is_near(a, b) is is_near(b, a) is near


def test_long_texts_match_only_themselves():
    """Beyond the bound nothing is judged: one changed word would drown, and the loop would wait."""
    text = "tell me more about it " * 100
    assert len(text) > MAX_TEXT_CHARS

    assert find_veto(text, text) is None
    assert find_veto(text, text + "now").guard == "length"


@pytest.mark.parametrize("word", ["to ", "do ", "next ", "1,", "a.", "'", '"', "not ", "Na Nb ", "one hundred "])
def test_no_text_within_the_bound_takes_long(word):
    """The worst that a client can send does not stop the event loop: far below a second even on a busy machine."""
    text = (word * MAX_TEXT_CHARS)[: MAX_TEXT_CHARS - 2]

    started = time.process_time()
    find_veto(text, text + " x")

    assert time.process_time() - started < 0.5
