"""S3 where Arrow's client is not enough: a plain client, and why a store refuses a request.

In: the environment, as Arrow reads it. Out: boto3's client; words for a refusal. boto3 is slow to import:
only leases (Arrow sends no conditions), refusals (Arrow hides their codes) and the deletion of many objects
(Arrow asks five times for each) ask for it, and uploads of what is made meanwhile: Arrow cannot call one off.
"""

import os
import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

REFUSED = r"HTTP status 40[013]|ACCESS_DENIED|INVALID_|EXPIRED|SKEWED|SIGNATURE|UNRECOGNIZED_CLIENT|TOKEN"
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
UNKNOWN_KEYS = {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"}
SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
PART_BYTES = 32 << 20  # of an upload: 10,000 of them, the most there may be, are 320 GB


def endpoint() -> str:
    """The address of a store that is not AWS's own; "" for that."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def plain_client(*, attempts: int, connect_s: float, silence_s: float) -> Any:
    """boto3's client of S3, which finds keys and roles as Arrow does: in the environment and the machine."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=connect_s,
        read_timeout=silence_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": "path"} if endpoint() else {},  # as Arrow does
        request_checksum_calculation="when_required",  # other stores know no trailing checksums
        response_checksum_validation="when_required",
    )
    return boto3.Session().client("s3", endpoint_url=endpoint() or None, config=config)


def delete_objects(
    bucket: str, keys: Sequence[str], *, attempts: int, silence_s: float, at_once: int
) -> None:
    """Deletes objects, of which some may not be there; a request each: not every store takes many in one.

    Raises:
        OSError: the store refused, or did not answer.
    """
    if not keys:
        return
    from botocore.exceptions import BotoCoreError, ClientError

    client = plain_client(attempts=attempts, connect_s=silence_s / 3, silence_s=silence_s)
    try:
        with ThreadPoolExecutor(at_once) as threads:
            for _ in threads.map(lambda key: client.delete_object(Bucket=bucket, Key=key), keys):
                pass
    except ClientError as error:
        status = error.response["ResponseMetadata"].get("HTTPStatusCode")
        raise OSError(f"{error} (HTTP status {status})") from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error


def upload(
    bucket: str, key: str, pieces: Iterable[bytes | memoryview], *, attempts: int, silence_s: float
) -> None:
    """Writes an object from pieces of any size, a part of it in memory at a time. When a piece cannot be
    made, no object appears, and what was sent is thrown away.

    Raises:
        OSError: the store refused, or did not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = plain_client(attempts=attempts, connect_s=silence_s / 3, silence_s=silence_s)
    place, held = {"Bucket": bucket, "Key": key}, bytearray()
    parts: list[dict[str, Any]] = []
    try:
        began = client.create_multipart_upload(**place)["UploadId"]
        try:
            for piece in pieces:
                held += piece
                if len(held) >= PART_BYTES:
                    parts.append(_part(client, place, began, len(parts) + 1, held))
                    held = bytearray()
            if held or not parts:
                parts.append(_part(client, place, began, len(parts) + 1, held))
            client.complete_multipart_upload(**place, UploadId=began, MultipartUpload={"Parts": parts})
        except BaseException:
            client.abort_multipart_upload(**place, UploadId=began)
            raise
    except ClientError as error:
        status = error.response["ResponseMetadata"].get("HTTPStatusCode")
        raise OSError(f"{error} (HTTP status {status})") from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error


def _part(client: Any, place: dict[str, str], began: str, number: int, data: bytearray) -> dict[str, Any]:
    sent = client.upload_part(**place, UploadId=began, PartNumber=number, Body=bytes(data))
    return {"ETag": sent["ETag"], "PartNumber": number}


def refusal(uri: str, text: str) -> tuple[str, str]:
    """Why S3 refused a request, and what helps. Arrow asks by HEAD, whose answer has no body and so no code:
    one GET of the same object is asked here, for the code and, by its Date, the store's clock."""
    code, skew_s = _asked_again(uri)
    if code in EXPIRED:
        return f"the credentials have expired ({code})", "get new AWS_* keys or a new token"
    if code in UNKNOWN_KEYS:
        return f"the store does not know these credentials ({code})", "check the AWS_* keys"
    if code in SKEWED:
        clock = (
            f", {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the store's" if skew_s else ""
        )
        return f"this machine's clock is wrong{clock} ({code})", "set the clock, by NTP"
    if code or re.search(r"ACCESS_DENIED|HTTP status 403|INVALID_ACCESS", text):
        # To write or list may be refused where a GET is not: NoSuchKey is then no word on that refusal.
        named = f" ({code})" if code and code not in ("AccessDenied", "403", "NoSuchKey") else ""
        return f"access denied{named}", "check permissions or AWS_* keys"
    return text, "check space and permissions"


def _asked_again(uri: str) -> tuple[str, float]:
    """(the error code of one plain GET at `uri`, "" where there is none; the seconds by which this machine's
    clock is ahead of the store's)."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        client = plain_client(attempts=1, connect_s=5.0, silence_s=10.0)
        if key.rstrip("/"):
            client.get_object(Bucket=bucket, Key=key.rstrip("/"), Range="bytes=0-0")
        else:
            client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        date = error.response["ResponseMetadata"]["HTTPHeaders"].get("date")
        ahead_s = time.time() - parsedate_to_datetime(date).timestamp() if date else 0.0
        return str(error.response["Error"].get("Code", "")), ahead_s
    except BotoCoreError:  # no answer at all: the error in hand says more
        return "", 0.0
    return "", 0.0
