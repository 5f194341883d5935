"""The sure guards: what vetoes also where a verifier judges, and what is left to it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.semantic.guards import SURE_GUARDS, find_veto, find_vetoes, judge_all

NEAR_MISSES = """
numbers: Convert 5 km to miles | Convert 50 km to miles
numbers: What are the best phones under 200 dollars? | What are the best phones under 300 dollars?
numbers: Who won the world cup in 2010? | Who won the world cup in 2014?
numbers: Give me a 7 day itinerary for Lisbon | Give me an itinerary for Lisbon
numbers: How much is 90 kg in pounds? | How much is 90 g in pounds?
numbers: When is it due, on May 3? | When is it due, on May 4?
numbers: What is 2+2? | What is 2*2?
numbers: Is x < y where x=3? | Is x > y where x=3?
units: How many MB are in a GB? | How many Mb are in a GB?
numbers: Is a 3 mW laser dangerous? | Is a 3 MW laser dangerous?
units: What is the formula for celsius to fahrenheit? | What is the formula for celsius to kelvin?
polarity: Which foods should I eat? | Which foods should I not eat?
polarity: How do I deploy with Docker? | How do I deploy without Docker?
polarity: How do I enable logging? | How do I disable logging?
polarity: Should I buy bonds? | Should I sell bonds?
polarity: Is hypertension dangerous? | Is hypotension dangerous?
polarity: What is my realized gain? | What is my unrealized gain?
polarity: Is it safe to eat before noon? | Is it safe to eat after noon?
marks: How do I translate "cat" into French? | How do I translate "dog" into French?
marks: What is at https://example.org/a? | What is at https://example.org/b?
marks: What does `git fetch` do? | What does `git pull` do?
marks: What does os.walk() return? | What does os.scan() return?
marks: Is the RTX3080 a good buy? | Is the RX6800 a good buy?
marks: What does user_id mean? | What does group_id mean?
letters: วันนี้อากาศเป็นอย่างไร | ฉันควรกินยาแก้ปวดกี่เม็ด
letters: 如何打开通知 | 如何关闭通知
letters: Is 🍒 edible? | May I eat 🍄?
letters: Rate this: ⭐⭐ | Rate this: ⭐⭐⭐⭐⭐
letters: Is the capital of 🇺🇸 large? | Is the capital of 🇷🇺 large?
letters: Wie kann ich drucken? | Was heißt es, zu drücken?
letters: ¿Cuántos años tienes? | ¿Cuántos anos tienes?
letters: Tôi muốn bán nhà | Tôi muốn bàn nhà
letters: Is a ∈ B here? | Is a ∉ B here?
entities: What is the capital of Austria? | What is the capital of Australia?
entities: How do I reverse a list in Python? | How do I reverse a list in Ruby?
entities: Is the shop open on Monday? | Is the shop open on Tuesday?
entities: How do I learn Spanish? | How do I learn French?
direction: How do I migrate from MySQL to Postgres? | How do I migrate from Postgres to MySQL?
direction: Is Anna taller than Lucy? | Is Lucy taller than Anna?
direction: Does Tom owe Jim 5 or 6 dollars? | Does Jim owe Tom 5 or 6 dollars?
direction: Did Tom and Eva call Jim? | Did Jim and Eva call Tom?
direction: Did Hannah keep the school? | Was Hannah kept by the school?
direction: Can a lion eat a whole shark? | Can a shark eat a whole lion?
"""
LEFT_OPEN = """
How do I learn Python? | What is the best way to learn Python?
What\N{RIGHT SINGLE QUOTATION MARK}s the tallest mountain? | Which mountain is the tallest of all?
Where is a good café in Paris? | In Paris, where do I find a good café?
What is 20°C in Fahrenheit? | Convert 20 °C to Fahrenheit
What causes jet lag? | Why do people get jet lag?
How does one lose weight? | How do I lose weight?
What is the difference between a thread and a process? | What is the difference between a process and a thread?
How can I become less patient? | How can I become more impatient?
What is the US budget? | What is the United States' budget?
How do I check which process is using port 3000? | Something is holding port 3000, how do I find out what it is?
Is Daniel friends with Maria? | Is Maria friends with Daniel?
Is it Tom or Anna who owes Jim? | Is it Anna or Tom who owes Jim?
Is the capital of France or the capital of Spain bigger? | Is the capital of Spain or the capital of France bigger?
What should I see in Vienna in 3 days? | Which places should I visit in 3 days in Vienna?
Who was the first man on the moon? | Which person walked on the moon first?
"""
TEXTS = st.text(max_size=80) | st.sampled_from([half for line in NEAR_MISSES.split("\n") for half in line.split(" | ")])


def near_misses() -> list[tuple[str, str, str]]:
    """Read the table: guard, and the two texts."""
    rows = [line.partition(": ") for line in NEAR_MISSES.strip().splitlines()]
    return [(guard, *pair.split(" | ")) for guard, _, pair in rows]


@pytest.mark.parametrize(("guard", "a", "b"), near_misses())
def test_a_sure_difference_vetoes_by_its_guard(guard, a, b):
    """Whatever a verifier would say, each of these is another question, either way round."""
    for one, other in ((a, b), (b, a)):
        veto = find_veto(one, other, only_sure=True)
        assert veto is not None
        assert veto.guard == guard
        assert veto.reason


@pytest.mark.parametrize("line", LEFT_OPEN.strip().splitlines())
def test_other_words_are_left_to_the_verifier(line):
    """What may be the same in other words has no sure veto."""
    a, b = line.split(" | ")

    assert find_veto(a, b, only_sure=True) is None
    assert find_vetoes(a, b, only_sure=True) == ()


def test_every_guard_tells_its_verdict():
    """Who explains a miss sees each guard's word, and which of them vetoes also beside a verifier."""
    verdicts = judge_all("How do I learn Spanish?", "What is the way to learn French?")

    assert [v.guard for v in verdicts if v.sure] == [guard for guard, _ in SURE_GUARDS]
    assert [v.guard for v in verdicts if v.sure and v.reason] == ["entities"]
    assert "content" in [v.guard for v in verdicts if not v.sure and v.reason]


def test_a_long_text_has_one_verdict():
    """Where only equal texts match, there is nothing else to say."""
    (verdict,) = judge_all("why " * 400, "how " * 400)

    assert (verdict.guard, verdict.sure) == ("length", True)


@given(a=TEXTS, b=TEXTS)
def test_the_order_of_the_texts_does_not_matter(a, b):
    """The sure guards never raise, and veto a pair however it is turned."""
    assert (find_veto(a, b, only_sure=True) is None) == (find_veto(b, a, only_sure=True) is None)
    assert find_veto(a, a, only_sure=True) is None


def test_the_longest_texts_are_judged_in_bounded_time():
    """Two texts of the greatest length, of the worst shape, hold the event loop up for less than a blink."""
    shapes = ["a1_b " * 199, "'x' " * 249, "not " * 249, "in 3 km " * 124, "python ruby " * 83, "`" * 999, "1" * 999]
    began = time.process_time()
    for shape in shapes:
        find_veto(shape, shape[::-1], only_sure=True)

    assert (time.process_time() - began) / len(shapes) < 0.2
