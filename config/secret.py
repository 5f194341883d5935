"""Secrets that the file names as `${NAME}` and the environment holds. Never shows one.

`${NAME}` may stand alone or inside the text of a secret value (`models.*.http.key`, `models.*.command.env.*`,
`batch.callback_secret`, `cache.shared.url`), and nowhere else, so that no secret
can reach a place where it would be printed.
"""

import re
from collections.abc import Mapping

from pydantic import SecretStr

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# An unclosed one is matched as well, so that it is refused and not taken for the secret.
_REFERENCE = re.compile(r"\$\{([^}]*)\}?")

# Also a URL of the shared tier may be a `${NAME}` alone.
STAND_IN = "redis://not-set"
NOT_SET = "is not set"


def filled(text: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment, and a stand-in that any secret takes for each `${NAME}` of a text that it lacks."""
    return {found[1]: STAND_IN for found in _REFERENCE.finditer(text)} | dict(environ)


def expand(value: object, environ: Mapping[str, str]) -> SecretStr:
    """Return the secret, each `${NAME}` replaced from `environ`. Raises `ValueError`, which never has the value."""
    if not isinstance(value, str):
        raise ValueError("a secret must be text, such as ${NAME} of an environment variable (quote it)")  # noqa: TRY004

    def replacement(found: re.Match[str]) -> str:
        name = found[1]
        if not found[0].endswith("}") or not _NAME.fullmatch(name):
            raise ValueError("a '${' must begin ${NAME}, with a NAME of letters, digits and _")
        if name not in environ:
            raise ValueError(f"the environment variable {name} {NOT_SET}")
        return environ[name]

    secret = _REFERENCE.sub(replacement, value)
    if not secret or not secret.isprintable():
        variables = ", ".join(found[1] for found in _REFERENCE.finditer(value))
        origin = f"the secret from {variables}" if variables else "the secret"
        raise ValueError(f"{origin} is {'empty' if not secret else 'not one line of printable characters'}")
    return SecretStr(secret)
