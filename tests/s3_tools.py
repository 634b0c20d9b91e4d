"""A real S3 endpoint over HTTP on loopback, with a faulty proxy in front of it."""

import logging
import os
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.faulty_proxy import faulty_proxy
from benchmarks.hosts import ACCOUNT


@contextmanager
def s3_server():
    """(host, port) of moto's server."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


@contextmanager
def s3_proxy(server):
    """A faulty proxy before the server, to which every S3 client of this process now goes."""
    with faulty_proxy(*server) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in {**ACCOUNT, "AWS_ENDPOINT_URL": proxy.url}.items():
            patch.setenv(name, value)
        yield proxy


def client(server):
    import boto3

    host, port = server
    return boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )


def upload(server, folder: Path) -> str:
    """The files below a folder in a bucket of their own; its name."""
    s3, bucket = client(server), f"bucket-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    for here, _, files in os.walk(folder):
        for file in files:
            path = Path(here) / file
            key = f"shards/{path.relative_to(folder)}"
            s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return bucket
