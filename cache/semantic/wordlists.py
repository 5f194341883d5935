"""Reads the lists that the lexicon is written in. Knows no words."""


def read_words(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


def read_phrases(lines: str) -> dict[str, list[tuple[str, ...]]]:
    """Read phrases, one a line or split by semicolons, into first word -> phrases, the longest first."""
    phrases: dict[str, list[tuple[str, ...]]] = {}
    for phrase in sorted(lines.strip().replace("\n", ";").split(";"), key=len, reverse=True):
        words = tuple(phrase.split())
        phrases.setdefault(words[0], []).append(words)
    return phrases


def read_table(lines: str) -> dict[str, str]:
    """Read lines of `canonical: alias alias …` into alias -> canonical; the canonical word stands for itself."""
    table: dict[str, str] = {}
    for line in lines.strip().splitlines():
        canonical, _, aliases = line.partition(":")
        table[canonical.strip()] = canonical.strip()
        table.update(dict.fromkeys(aliases.split(), canonical.strip()))
    return table
