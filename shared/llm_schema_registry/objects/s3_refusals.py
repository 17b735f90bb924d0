"""What the answers and failures of S3, and of servers that speak it, mean for a caller.

Source: Amazon S3 API Reference, "Error responses", list of error codes; codes of MinIO, Ceph and rclone beside.
"""

from __future__ import annotations

import enum
import re

import aiohttp
from botocore import exceptions

from llm_schema_registry import errors

NOT_FOUND = "NoSuchKey"
PRECONDITION = "PreconditionFailed"
NO_UPLOAD = "NoSuchUpload"
INVALID_RANGE = "InvalidRange"
DENIED = "AccessDenied"

UNSUPPORTED = frozenset(
    {"NotImplemented", "InvalidArgument", "InvalidRequest", "InvalidStorageClass", "MethodNotAllowed", "BadRequest"}
    | {"MalformedXML", "UnsupportedArgument", "NotSupported", "InvalidEncryptionAlgorithmError", "XNotImplemented"}
    | {"ServerSideEncryptionConfigurationNotFoundError"}
)
"""How stores say that they do not know a header."""
WRONG_BYTES = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "ContentSHA256Mismatch"}
)
"""The bytes that arrived are not those that were sent."""
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})

_AGAIN = frozenset(
    {"InternalError", "InternalFailure", "ServiceUnavailable", "SlowDown", "SlowDownRead", "SlowDownWrite", "Busy"}
    | {"RequestTimeout", "RequestTimeoutException", "Throttling", "ThrottlingException", "TooManyRequests"}
    | {"RequestLimitExceeded", "RequestThrottled", "BandwidthLimitExceeded", "PriorRequestNotComplete"}
    | {"OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "KMS.ThrottlingException"}
    | {"EC2ThrottledException", "ServerNotInitialized", "XMinioServerNotInitialized"}
)
_AGAIN_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_ADVICE = (
    (
        frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity", "NotSignedUp"}),
        "does not accept the credentials: correct the access key id and the secret access key",
    ),
    (frozenset({"NoSuchBucket"}), "does not exist: create it, or correct the name of the bucket"),
    (
        frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}),
        "is in another region: correct the region or the endpoint",
    ),
    (
        frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"}),
        "has another time than this machine: set this machine's clock (NTP)",
    ),
    (
        frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity"}),
        "is full: free space there or raise its quota",
    ),
    (
        frozenset({"KMS.DisabledException", "KMS.NotFoundException", "KMS.KMSInvalidStateException"}),
        "cannot use its KMS key: enable the key, or correct kms_key_id",
    ),
    (
        frozenset({DENIED, "AllAccessDisabled", "AccountProblem", "KMS.AccessDeniedException", "InvalidPayer"}),
        "does not allow this: give the credentials the right on the bucket, its prefix and its KMS key",
    ),
    (frozenset({"InvalidBucketName"}), "has a name that is not allowed: correct the name of the bucket"),
)
_HEAD_CODES = {
    "301": "PermanentRedirect",
    "400": "ExpiredToken",  # HEAD has no body that could tell more; every other cause stays after a renewal.
    "403": DENIED,
    "404": NOT_FOUND,
    "412": PRECONDITION,
    "416": INVALID_RANGE,
}
_CODE = re.compile(r"[A-Za-z0-9.]{1,80}")


class Kind(enum.Enum):
    """What to do about a failure."""

    AGAIN = "repeat"
    RENEW = "renew the credentials and repeat"
    WRONG_BYTES = "send the bytes again, a few times"
    REFUSED = "repeating does not help"


class Refusal(Exception):
    """An answer that the caller said it expects. Never leaves the package."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


FAILURES = (
    exceptions.ClientError,
    exceptions.BotoCoreError,
    exceptions.HTTPClientError,
    aiohttp.ClientError,
    TimeoutError,
    OSError,
)
"""All that a request ends with, or the reading of its answer."""

_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.ProfileNotFound,
)
_CONNECTION = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError)


def code_of(error: Exception) -> str:
    """The error code of an answer; a plain word for a failure without one."""
    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = str(error.response.get("Error", {}).get("Code", ""))
        if status == 507:
            return "QuotaExceeded"
        code = _HEAD_CODES.get(code, code)
        return code if _CODE.fullmatch(code) else "an unknown error"
    if isinstance(error, TimeoutError | exceptions.ReadTimeoutError | exceptions.ConnectTimeoutError):
        return "no answer in time"
    return "connection failed"


def kind_of(error: Exception) -> Kind:
    """What to do about a failure."""
    if isinstance(error, exceptions.ClientError):
        code = code_of(error)
        if code in EXPIRED:
            return Kind.RENEW
        if code in WRONG_BYTES:
            return Kind.WRONG_BYTES
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        again = code in _AGAIN or (status in _AGAIN_STATUS and not _known(code))
        return Kind.AGAIN if again else Kind.REFUSED
    if isinstance(error, (*_CREDENTIALS, ValueError)) and not isinstance(error, _CONNECTION):
        return Kind.REFUSED
    if isinstance(error, exceptions.BotoCoreError) and not isinstance(error, _CONNECTION):
        return Kind.REFUSED
    return Kind.AGAIN


def refused(error: Exception, place: str) -> errors.ObjectStoreDenied:
    """The error of the family for a failure that repeating does not help with. Holds no words of the driver."""
    if isinstance(error, _CREDENTIALS):
        return errors.ObjectStoreDenied(
            f"no credentials for {place} were found: set access_key_id and secret_access_key, or give this process a "
            "role, a profile or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in its environment"
        )
    if not isinstance(error, exceptions.ClientError):
        return errors.ObjectStoreDenied(
            f"the options for {place} cannot be used: correct the bucket's name, the region and the endpoint"
        )
    code = code_of(error)
    operation = getattr(error, "operation_name", "the request")
    advice = next((advice for codes, advice in _ADVICE if code in codes), "refuses this: see the code in its manual")
    return errors.ObjectStoreDenied(f"{place} {advice} ({operation}: {code})", metadata={"code": code})


def unavailable(error: Exception, place: str, attempts: int) -> errors.ObjectStoreUnavailable:
    """The error of the family for a store that did not serve, however often it was asked."""
    return errors.ObjectStoreUnavailable(
        f"{place} did not serve after {attempts} attempts ({code_of(error)}): check the store and the network, then "
        "repeat",
        metadata={"code": code_of(error)},
    )


def _known(code: str) -> bool:
    return any(code in codes for codes, _ in _ADVICE)
