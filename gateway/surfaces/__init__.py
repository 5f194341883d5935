"""Wire formats: each decodes bytes to a `Request` and encodes an answer to bytes; none knows a cache or a pool."""
