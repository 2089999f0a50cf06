"""A versioned public bucket on loopback."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

BUCKET = "openneuro.org"
_ANYONE = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": "*",
            # HeadObject is no action of AWS; moto wants it.
            "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:HeadObject"],
            "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        }
    ],
}


@dataclass
class PublicBucket:
    """The bucket, with an owner's client; readers use ``url`` without credentials."""

    client: Any
    host: str
    port: int

    @property
    def url(self) -> str:
        return self.url_through(self.port)

    def url_through(self, port: int) -> str:
        """Address of the bucket as seen through a proxy on another port."""
        return f"http://{self.host}:{port}/{BUCKET}"

    def put(self, key: str, content: bytes) -> str:
        """Store an object; returns its version id."""
        return str(self.client.put_object(Bucket=BUCKET, Key=key, Body=content)["VersionId"])

    def delete_version(self, key: str, version: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key, VersionId=version)


@contextmanager
def public_bucket() -> Iterator[PublicBucket]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="owner",
        aws_secret_access_key="owner",
    )
    try:
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(_ANYONE))
        yield PublicBucket(client, host, port)
        client.delete_bucket_policy(Bucket=BUCKET)
    finally:
        client.close()
        server.stop()
