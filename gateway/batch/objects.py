"""Inputs from an object in S3, in the buckets that the operator allows. Knows no line.

Requests are signed with the gateway's own credentials, found where boto3 looks for them; a bucket that is not named in
the policy is therefore nobody's to read through it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from gateway.errors import InvalidRequest
from gateway.fields import cut

_CHUNK_BYTES = 64 * 2**10
_REFERENCE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", re.DOTALL)


def pieces(reference: str, buckets: Sequence[str], endpoint: str | None, max_bytes: int) -> Iterator[bytes]:
    """Yield what is in the object, for a thread of its own. Raises `InvalidRequest`."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow to load, and rarely needed

    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidRequest(f"'{cut(reference)}' is no 's3://bucket/key'", "inputs")
    bucket, key = match.groups()
    if bucket not in buckets:
        raise InvalidRequest(f"the bucket '{cut(bucket)}' is not among 'batch.s3_buckets'", "inputs")
    try:
        found = _client(endpoint).get_object(Bucket=bucket, Key=key)
        with closing(found["Body"]) as body:
            if found["ContentLength"] > max_bytes:
                raise InvalidRequest(
                    f"the inputs have more than {max_bytes} bytes, which 'batch.max_bytes' is", "inputs"
                )
            yield from body.iter_chunks(_CHUNK_BYTES)
    except (BotoCoreError, ClientError, OSError) as error:
        raise InvalidRequest(f"'{cut(reference)}' cannot be read: {cut(str(error))}", "inputs") from error


def _client(endpoint: str | None) -> Any:
    import boto3  # noqa: PLC0415 - as above
    from botocore.config import Config  # noqa: PLC0415 - as above

    config = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3, "mode": "standard"})
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
