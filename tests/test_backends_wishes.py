"""What a worker of ours honours, what it refuses by name, and what asks for nothing."""

import pytest

from backends.contract import BadJob, Job, Message, Task
from backends.wishes import Wishes, honoured, read_wishes


def chat(**extra: object) -> Job:
    """Make a chat job."""
    return Job(Task.CHAT, messages=(Message("user", "w1"),), extra=extra)


def completion(**extra: object) -> Job:
    """Make a completion job."""
    return Job(Task.COMPLETION, prompt="w1", extra=extra)


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": []},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"functions": [], "function_call": "auto"},
        {"modalities": ["text"], "audio": None},
        {"response_format": {"type": "text"}, "parallel_tool_calls": True},
        {"suffix": "", "echo": False, "best_of": 1},
    ],
)
def test_what_asks_for_nothing_is_let_through(extra):
    """A value that says what holds anyway is neither refused nor sent to the worker."""
    assert honoured(chat(**extra)) == {}


@pytest.mark.parametrize("task", [Task.EMBED, Task.PREDICT, Task.INFER])
def test_fields_of_texts_are_refused_for_other_tasks(task):
    """Two choices of a vector are refused, one is what there is anyway."""
    assert honoured(Job(task, extra={"n": 1, "logprobs": False})) == {}
    with pytest.raises(BadJob, match="cannot honour 'n'"):
        honoured(Job(task, extra={"n": 2}))


@pytest.mark.parametrize(
    ("job", "param"),
    [
        (chat(tools=[{"type": "function"}]), "tools"),
        (chat(tool_choice="required"), "tool_choice"),
        (chat(response_format={"type": "json_object"}), "response_format"),
        (chat(functions=[{}]), "functions"),
        (chat(modalities=["text", "audio"]), "modalities"),
        (chat(reasoning_effort="low"), "reasoning_effort"),
        (chat(store=True), "store"),
        (chat(echo=True), "echo"),
        (chat(best_of=2), "best_of"),
        (chat(guided_regex="a"), "guided_regex"),
        (completion(suffix="b"), "suffix"),
        (completion(top_logprobs=3), "top_logprobs"),
        (completion(top_logprobs=False), "top_logprobs"),
    ],
)
def test_what_cannot_be_honoured_is_named(job, param):
    """A field that a worker cannot honour raises BadJob with its name."""
    with pytest.raises(BadJob, match=f"cannot honour '{param}'") as caught:
        honoured(job)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "extra",
    [
        {"tool_calls": [{"id": "a"}]},
        {"tool_call_id": "a"},
        {"function_call": {"name": "f"}},
        {"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]},
    ],
)
def test_a_message_of_more_than_text_is_refused(extra):
    """A message that holds a call, a call's result or a picture raises BadJob for the field `messages`."""
    with pytest.raises(BadJob, match="reads text only") as caught:
        honoured(Job(Task.CHAT, messages=(Message("user", "a", extra),)))
    assert caught.value.param == "messages"


def test_a_message_of_text_parts_is_text():
    """Parts that are all text, and fields that say nothing of the content, pass."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    extra = {"content": parts, "name": "Eva", "tool_calls": [], "refusal": None}
    assert honoured(Job(Task.CHAT, messages=(Message("user", "ab", extra),))) == {}


def test_wishes_are_read():
    """Each honoured field reaches the worker and is read there."""
    fields = {"n": 2, "logit_bias": {"7": -100, "8": 0.5}, "frequency_penalty": 1, "presence_penalty": -2.0}
    wish = Wishes(2, 5, {7: -100, 8: 0.5}, 1.0, -2.0)

    assert read_wishes(chat(**honoured(chat(**fields, logprobs=True, top_logprobs=5)))) == wish
    assert read_wishes(completion(**honoured(completion(**fields, logprobs=5, best_of=2)))) == wish
    assert read_wishes(completion(echo=True)) == Wishes(echo=True)
    assert read_wishes(completion(logprobs=0)) == Wishes(logprobs=0)
    assert read_wishes(chat(logprobs=True)) == Wishes(logprobs=0)
    assert read_wishes(chat(logprobs=False, top_logprobs=0)) == read_wishes(completion()) == Wishes()


@pytest.mark.parametrize(
    ("job", "param"),
    [
        (chat(n=0), "n"),
        (chat(n=17), "n"),
        (chat(n=True), "n"),
        (chat(n="2"), "n"),
        (chat(logprobs=1), "logprobs"),
        (chat(top_logprobs=2), "top_logprobs"),
        (chat(logprobs=True, top_logprobs=21), "top_logprobs"),
        (completion(logprobs=6), "logprobs"),
        (completion(logprobs=True), "logprobs"),
        (completion(best_of=2), "best_of"),
        (completion(n=3, best_of=2), "best_of"),
        (completion(echo=True, logprobs=1), "echo"),
        (completion(echo="yes"), "echo"),
        (chat(logit_bias=[1]), "logit_bias"),
        (chat(logit_bias={"a": 1}), "logit_bias"),
        (chat(logit_bias={"-1": 1}), "logit_bias"),
        (chat(logit_bias={"1": 101}), "logit_bias"),
        (chat(logit_bias={"1": True}), "logit_bias"),
        (chat(logit_bias={"1": float("nan")}), "logit_bias"),
        (chat(frequency_penalty=2.1), "frequency_penalty"),
        (chat(presence_penalty="1"), "presence_penalty"),
    ],
)
def test_a_value_out_of_range_is_named(job, param):
    """A value that no answer can honour raises BadJob with the field's name and what is allowed."""
    with pytest.raises(BadJob, match=param) as caught:
        read_wishes(job)
    assert caught.value.param == param
