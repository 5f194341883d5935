"""Inputs of a batch from files, S3 and HTTPS, through the pages that take an order."""

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import boto3
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

from tests.batch_api import POLICY, api, items
from tests.test_gateway_batch_outbound import serving


async def test_a_large_file_is_written_as_it_is_read(tmp_path):
    """Lots of items go to the disk before the last are read; a bad line at the end leaves nothing of them."""
    file = tmp_path / "inputs.jsonl"
    lines = [json.dumps(f"text {number}") for number in range(3000)]
    async with api(tmp_path / "queue", replace(POLICY, file_roots=(tmp_path,))) as served:
        file.write_text("\n".join([*lines, "bad"]))
        refused = await served.order(inputs=f"file://{file}", status=400)
        assert "line 3001" in refused["error"]["message"]
        file.write_text("\n".join([*lines, '""']))
        refused = await served.order(inputs=f"file://{file}", status=400)
        assert refused["error"]["param"] == "line 3001"
        assert await items(served) == 0

        file.write_text("\n".join(lines))
        ended = await served.ended((await served.order(inputs=f"file://{file}"))["batch_id"], "?offset=2995")
        assert (ended["total"], ended["done"]) == (3000, 3000)
        assert [row["index"] for row in ended["results"]] == [2995, 2996, 2997, 2998, 2999]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Serve S3's API on this machine, with a bucket of inputs; return its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="inputs")
        client.put_object(Bucket="inputs", Key="a b/ü.jsonl", Body=b'"one"\n{"input": "two"}\n')
        client.create_bucket(Bucket="private")
        client.put_object(Bucket="private", Key="secret", Body=b"secret")
        yield f"http://{host}:{port}"
        client.close()
    server.stop()


async def test_inputs_come_from_s3(tmp_path, s3):
    """The object's lines are the inputs."""
    async with api(tmp_path, replace(POLICY, s3_endpoint=s3, s3_buckets=("inputs",))) as served:
        accepted = await served.order(inputs="s3://inputs/a b/ü.jsonl")
        ended = await served.ended(accepted["batch_id"])

    assert (ended["status"], ended["done"]) == ("done", 2)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("s3://inputs/none", "cannot be read"),
        ("s3://private/secret", "batch.s3_buckets"),
        ("s3://inputs", "is no 's3://bucket/key'"),
        ("s3://inputs@private/secret", "is no 's3://bucket/key'"),
    ],
)
async def test_other_objects_are_refused(tmp_path, s3, reference, message):
    """The gateway's credentials open more than its clients may see."""
    async with api(tmp_path, replace(POLICY, s3_endpoint=s3, s3_buckets=("inputs",))) as served:
        refused = await served.order(inputs=reference, status=400)

    assert message in refused["error"]["message"]


async def test_a_large_object_is_refused_before_it_is_read(tmp_path, s3):
    """Its size is known at once."""
    policy = replace(POLICY, s3_endpoint=s3, s3_buckets=("inputs",), max_bytes=10)
    async with api(tmp_path, policy) as served:
        refused = await served.order(inputs="s3://inputs/a b/ü.jsonl", status=400)

    assert "batch.max_bytes" in refused["error"]["message"]


async def test_a_client_that_leaves_while_its_file_is_read_leaves_nothing(tmp_path):
    """What was written of it is discarded; the room is free again."""
    reading = asyncio.Event()

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"line\n" * 1000)
        reading.set()
        await asyncio.Event().wait()
        return response

    async with serving(trickle) as url, api(tmp_path) as served:
        asking = asyncio.create_task(served.order(inputs=url))
        await reading.wait()
        while True:
            if await items(served):
                break
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        assert await items(served) == 0


async def test_inputs_come_over_https(tmp_path):
    """The lines of the body are the inputs."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="one\ntwo\n")

    async with serving(answer) as url, api(tmp_path) as served:
        ended = await served.ended((await served.order(inputs=f"{url}/inputs.txt"))["batch_id"])

    assert (ended["status"], ended["done"]) == ("done", 2)
