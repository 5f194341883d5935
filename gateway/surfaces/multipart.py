"""Finds the plain fields of a `multipart/form-data` body (RFC 7578), by its delimiters alone. Pure."""

from email.message import Message

from gateway.errors import InvalidRequest

_MAX_PARTS = 256
_MAX_HEAD_BYTES = 4096
_MAX_VALUE_BYTES = 4096
_HEAD_END = b"\r\n\r\n"


def fields_of(content_type: str, body: bytes) -> dict[str, str]:
    """Return the short fields that are no files; of a name that comes twice, the first. Raises `InvalidRequest`."""
    delimiter = b"\r\n--" + _boundary(content_type)
    found: dict[str, str] = {}
    data = b"\r\n" + body
    start = data.find(delimiter)
    for _ in range(_MAX_PARTS):
        end = data.find(delimiter, start + len(delimiter))
        if start < 0 or end < 0:
            break
        _note(data, start + len(delimiter), end, found)
        start = end
    else:
        raise InvalidRequest(f"the form has more than {_MAX_PARTS} parts")
    if start < 0 or data[start + len(delimiter) :][:2] != b"--":
        raise InvalidRequest(
            "the body is not the multipart/form-data that its Content-Type announces: no last boundary"
        )
    return found


def _boundary(content_type: str) -> bytes:
    head = Message()
    head["content-type"] = content_type
    boundary = head.get_boundary()
    if not boundary:
        raise InvalidRequest("the Content-Type multipart/form-data must name a boundary")
    return boundary.encode()


def _note(data: bytes, start: int, end: int, found: dict[str, str]) -> None:
    """Note the field between two delimiters, where it is a plain one."""
    head_end = data.find(_HEAD_END, start, min(end, start + _MAX_HEAD_BYTES))
    if head_end < 0 or end - head_end > _MAX_VALUE_BYTES:
        return
    head = Message()
    for line in data[start:head_end].split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            head["content-disposition"] = value.strip().decode("utf-8", "replace")
    name, filename = head.get_param("name", header="content-disposition"), head.get_filename()
    if isinstance(name, str) and filename is None:
        found.setdefault(name, data[head_end + len(_HEAD_END) : end].decode("utf-8", "replace"))
