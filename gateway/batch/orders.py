"""What a client may order: the body of `POST /api/v1/batch`, and each of its inputs as a request. Knows no queue.

An input is a string (a text, or a prompt), or an object with the fields of the operation's own request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import orjson

from backends.contract import Task
from gateway.batch.contract import Operation
from gateway.errors import InvalidRequest
from gateway.fields import cut, mapping, parse_object, refuse, said, text
from gateway.request import Request
from gateway.surfaces import native
from gateway.surfaces.wire import Encoder

_OPERATIONS: Mapping[str, Operation] = {name: name for name in get_args(Operation)}
_OF_TASK: Mapping[Task, Operation] = {
    Task.CHAT: "generate",
    Task.COMPLETION: "generate",
    Task.EMBED: "embed",
    Task.PREDICT: "predict",
}
_TEXT_FIELD: Mapping[Operation, str] = {"generate": "prompt", "embed": "inputs", "predict": "input"}
_OWN = frozenset({"model", "stream"})


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for. `inputs` is not looked at yet; without `operation` the model's task decides."""

    model: str
    operation: Operation | None
    parameters: Mapping[str, Any]
    inputs: object
    callback_url: str | None


def read(body: bytes) -> Order:
    """Read an order. Raises `InvalidRequest`."""
    fields = parse_object(body)
    native.only(fields, "model", "inputs", "task", "parameters", "callback_url")
    named = said(fields, "task")
    operation = None if named is None else _OPERATIONS.get(named)
    if named is not None and operation is None:
        raise refuse("task", named, f"one of {', '.join(_OPERATIONS)}")
    parameters = mapping(fields, "parameters") or {}
    native.only(parameters, *native.SAMPLING)
    return Order(text(fields, "model"), operation, parameters, fields.get("inputs"), said(fields, "callback_url"))


def operation_of(order: Order, task: Task) -> Operation:
    """Return what is to be done with the inputs. Raises `InvalidRequest` where the model does not do it in batches."""
    operation = _OF_TASK.get(task)
    if operation is None:
        raise InvalidRequest(f"'{cut(order.model)}' has the task {task}, which is not done in batches", "model")
    if order.operation not in (None, operation):
        raise InvalidRequest(
            f"'task' is {order.operation}, but '{cut(order.model)}' is there to {operation}: say that, or leave it out",
            "task",
        )
    if order.parameters and operation != "generate":
        raise InvalidRequest(
            f"'parameters' belong to the task 'generate', and this batch is to {operation}", "parameters"
        )
    return operation


def checked(operation: Operation, model: str, parameters: Mapping[str, Any], where: str, value: object) -> bytes:
    """Return an input's JSON for the queue. Raises `InvalidRequest`, which says where the input stands."""
    if isinstance(value, dict) and value.keys() == {"input"}:
        value = value["input"]
    try:
        body = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"{where} is nested too deep", where) from error
    if not isinstance(value, str | dict):
        raise refuse(where, value, "a string or an object")
    try:
        request(operation, model, parameters, body)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}", where) from error
    return body


def request(operation: Operation, model: str, parameters: Mapping[str, Any], item: bytes) -> tuple[Request, Encoder]:
    """Make the request that an input stands for, and what writes its result. Raises `InvalidRequest`."""
    value = orjson.loads(item)
    fields = {_TEXT_FIELD[operation]: value} if isinstance(value, str) else value
    if taken := sorted(_OWN & fields.keys()):
        raise InvalidRequest(f"'{taken[0]}' is said once for the whole batch, or not at all", taken[0])
    body = {**parameters, **fields, "model": model}
    return native.OPERATIONS[operation]({**body, "stream": False} if operation == "generate" else body)
