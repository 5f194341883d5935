"""Decides which answers may be served for another wording, by labels of what was served. Knows no vectors."""
