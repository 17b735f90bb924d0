"""Every limit of the registry that is not a setting, by name."""

from __future__ import annotations

SUBJECT_CHARACTERS_MAX = 255
DESCRIPTION_CHARACTERS_MAX = 4096
OWNER_CHARACTERS_MAX = 255
TAGS_MAX = 64
TAG_CHARACTERS_MAX = 128
METADATA_MAX = 64
METADATA_KEY_CHARACTERS_MAX = 128
METADATA_VALUE_CHARACTERS_MAX = 1024
REQUEST_ID_CHARACTERS_MAX = 64

REFERENCES_MAX = 64
REFERENCE_NAME_CHARACTERS_MAX = 1024
REFERENCE_DEPTH_MAX = 16
REFERENCE_CLOSURE_MAX = 256
DEPENDENTS_MAX = 10_000

VERSIONS_PER_SUBJECT_MAX = 10_000
"""Live versions of one subject. A registration reads their heads, so the number is bounded."""

BATCH_IDS_MAX = 250
ANSWER_BYTES_MAX = 3 << 20
"""Bytes of text in one batch, list or watch answer: below the 4 MiB that gRPC clients accept by default."""

PAGE_SIZE_MAX = 250
PAGE_SIZE_DEFAULT = 50
SUBJECT_PAGE_SIZE_MAX = 1000
SUBJECT_PAGE_SIZE_DEFAULT = 100
CHANGE_PAGE_SIZE_MAX = 1000
CHANGE_PAGE_SIZE_DEFAULT = 100

QUERY_CHARACTERS_MAX = 256
QUERY_WORDS_MAX = 16
QUERY_TAGS_MAX = 16
WORDS_MAX = 256
WORD_CHARACTERS_MAX = 64

FINDINGS_MAX = 200
DIFFERENCES_MAX = 500
VALIDATION_ERRORS_MAX = 100

PAYLOADS_MAX = 10_000
"""Payloads in one request of StreamValidateData."""
ANSWER_ERRORS_MAX = 1_000
"""Errors that one answer of StreamValidateData lists."""
ANSWER_ERRORS_BYTES_MAX = 1 << 20
"""Bytes of errors in one answer of StreamValidateData, beyond which the following payloads are listed without."""
STREAM_KEY_CHARACTERS_MAX = 64
MESSAGE_TYPE_CHARACTERS_MAX = 512

SCHEMA_ID_MAX = (1 << 31) - 1
"""Existing wire formats carry a schema id in four signed bytes."""
