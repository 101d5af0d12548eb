"""Where leases lie (pipeline/lease/lease.py): on a disk, or in a bucket.

In: a folder or an s3:// prefix. Out: named files that are created only if they are not there, with their ages
by the clock of their store. S3 is asked by boto3: Arrow's client cannot send a condition. It finds keys,
roles and endpoints as Arrow does, in the environment and from the machine.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.s3 import plain_client
from pipeline.storage import S3_SILENCE_S, TEMP_PREFIX, storage_errors

LOG = logging.getLogger(__name__)
S3_ATTEMPTS = 5  # a request: about ten seconds of back-off; a beat that fails comes again
IS_THERE = (409, 412)  # ConditionalRequestConflict, PreconditionFailed


class DiskLeases:
    """Leases in a folder of a disk, local or shared. The disk's clock is the time of a file written to it."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        with storage_errors("write to", str(folder)):
            folder.mkdir(parents=True, exist_ok=True)

    def create(self, name: str, data: bytes) -> bool:
        with storage_errors("write", str(self._folder / name)):
            try:
                with open(self._folder / name, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                return False
        return True

    def ages_s(self) -> Mapping[str, float]:
        with storage_errors("list", str(self._folder)):
            leases = [p for p in self._folder.iterdir() if p.name.startswith(self._prefix)]
        if not leases:
            return {}
        with storage_errors("write to", str(self._folder)):
            probe = self._folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}-now"
            probe.write_bytes(b"now")
            now_s = probe.stat().st_mtime
            probe.unlink(missing_ok=True)
            ages = {}
            for path in leases:
                try:
                    ages[path.name] = now_s - path.stat().st_mtime
                except FileNotFoundError:  # an old number that its heir deletes
                    continue
        return ages

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return b""

    def renew(self, name: str, data: bytes) -> None:
        """In place: a rename could bring a deleted number back. The disk says when it was."""
        with storage_errors("write", str(self._folder / name)), open(self._folder / name, "r+b") as file:
            file.truncate(len(data))
            file.write(data)

    def delete(self, name: str) -> None:
        with storage_errors("delete", str(self._folder / name)):
            (self._folder / name).unlink(missing_ok=True)


class S3Leases:
    """Leases below a prefix of a bucket. Its clock is the Date of each answer."""

    def __init__(self, root: str, prefix: str) -> None:
        self._root = root
        self._bucket, _, folder = root.removeprefix("s3://").rstrip("/").partition("/")
        self._folder = f"{folder}/" if folder else ""
        self._prefix = prefix
        self._client = plain_client(attempts=S3_ATTEMPTS, connect_s=S3_SILENCE_S / 3, silence_s=S3_SILENCE_S)

    def create(self, name: str, data: bytes) -> bool:
        """A second creation must be refused: if it is not, the store does not heed the condition, and what
        it last took counts, which `Lease.beat` finds out."""
        try:
            there = not self._put(name, data, IfNoneMatch="*") and self.read(name) != data
        except _NoConditions:
            return self._unconditional(name, data)
        if there:
            return False
        if self._put(name, data, IfNoneMatch="*"):
            self._warn()
        return self.read(name) == data

    def _unconditional(self, name: str, data: bytes) -> bool:
        self._warn()
        return not self.read(name) and self._put(name, data) and self.read(name) == data

    def _warn(self) -> None:
        LOG.warning(
            "the store of %s does not heed conditional writes: of two commands that begin in the same second "
            "both may go on, until one finds the other at its next heartbeat and stops",
            self._root,
        )

    def _put(self, name: str, data: bytes, **conditions: str) -> bool:
        def put() -> bool:
            self._client.put_object(Bucket=self._bucket, Key=f"{self._folder}{name}", Body=data, **conditions)
            return True

        with self._errors("write", name):
            return _unless_there(put, conditional=bool(conditions))

    def ages_s(self) -> Mapping[str, float]:
        with self._errors("list", self._prefix):
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self._folder}{self._prefix}")
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            rows = answer.get("Contents", ())
            return {
                row["Key"].rpartition("/")[2]: (now - row["LastModified"]).total_seconds() for row in rows
            }

    def read(self, name: str) -> bytes:
        from botocore.exceptions import HTTPClientError

        attempt = 0
        while True:  # boto3 tries a request again, but not a body that is cut off
            attempt += 1
            with self._errors("read", name):
                try:
                    answer = self._client.get_object(Bucket=self._bucket, Key=f"{self._folder}{name}")
                    return bytes(answer["Body"].read())
                except self._client.exceptions.NoSuchKey:
                    return b""
                except HTTPClientError:
                    if attempt == S3_ATTEMPTS:
                        raise
            time.sleep(0.1 * 2**attempt)

    def renew(self, name: str, data: bytes) -> None:
        self._put(name, data)

    def delete(self, name: str) -> None:
        with self._errors("delete", name):
            self._client.delete_object(Bucket=self._bucket, Key=f"{self._folder}{name}")

    @contextmanager
    def _errors(self, action: str, name: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with storage_errors(action, f"{self._root}/{name}"):
                yield
        except ClientError as error:  # Arrow's words, so that one place reads them
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            raise _translated(action, f"{self._root}/{name}", f"{error} (HTTP status {status})") from error
        except BotoCoreError as error:
            raise _translated(action, f"{self._root}/{name}", f"curl: {error}") from error


class _NoConditions(Exception):
    """The store refuses a request with a condition."""


def _unless_there(put: Callable[[], bool], *, conditional: bool) -> bool:
    from botocore.exceptions import ClientError

    try:
        return put()
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if conditional and status in IS_THERE:
            return False
        if conditional and error.response.get("Error", {}).get("Code") == "NotImplemented":
            raise _NoConditions from error
        raise


def _translated(action: str, uri: str, text: str) -> StorageError:
    try:
        with storage_errors(action, uri):
            raise OSError(text)
    except StorageError as error:
        return error
