"""registry.v1.ValidationService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from llm_schema_registry.errors import Error, InvalidField
from llm_schema_registry.registry.v1 import validation_service_pb2 as pb
from llm_schema_registry.registry.v1 import validation_service_pb2_grpc as rpc
from services.registry.codec import reports
from services.registry.domain import limits
from services.registry.domain.formats import DataRules, Encoding
from services.registry.handlers.fields import Fields
from services.registry.handlers.streams import one_ahead
from services.registry.usecases.library import Library
from services.registry.usecases.validate import Checked, DataQuestion, DataTarget, ValidateData, validate_schema


class ValidationService(rpc.ValidationServiceServicer):
    """Checks schemas by their format's rules, and data by a schema's."""

    def __init__(self, validate: ValidateData, library: Library, *, text_bytes_max: int, data_bytes_max: int) -> None:
        self._validate = validate
        self._library = library
        self._text_bytes_max = text_bytes_max
        self._data_bytes_max = data_bytes_max

    async def ValidateSchema(self, request: pb.ValidateSchemaRequest, context: Any) -> pb.ValidateSchemaResponse:
        """See the contract."""
        fields = Fields()
        form = fields.format(request.format)
        text = fields.schema_text(request.text, self._text_bytes_max)
        references = fields.references(request.references)
        fields.require_valid()
        found = await validate_schema(form, text, references, library=self._library)
        return pb.ValidateSchemaResponse(
            valid=not found.problems,
            errors=[reports.problem(problem) for problem in found.problems],
            warnings=[reports.problem(problem) for problem in found.warnings],
        )

    async def ValidateData(self, request: pb.ValidateDataRequest, context: Any) -> pb.ValidateDataResponse:
        """See the contract."""
        fields = Fields()
        question = _question(request, fields)
        if len(request.data) > self._data_bytes_max:
            fields.refuse("data", f"has {len(request.data)} bytes; at most {self._data_bytes_max} are allowed")
        fields.require_valid()
        found = await self._validate.check(await self._validate.target(question), request.data)
        return pb.ValidateDataResponse(
            valid=not found.validation.problems,
            errors=[reports.problem(problem) for problem in found.validation.problems],
            truncated=found.validation.truncated,
            schema_id=found.schema_id,
        )

    async def StreamValidateData(
        self, request_iterator: AsyncIterator[pb.StreamValidateDataRequest], context: Any
    ) -> AsyncIterator[pb.StreamValidateDataResponse]:
        """See the contract."""
        target: DataTarget | None = None
        index = 0
        async for request in one_ahead(request_iterator):
            answer = pb.StreamValidateDataResponse(first_index=index)
            try:
                if request.HasField("rules"):
                    target = None
                    target = await self._target(request.rules)
                self._require_payloads(request.payloads)
                found = await self._validate.check_all(_chosen(target), request.payloads)
                _tell(answer, found)
            except Error as error:
                answer.error.CopyFrom(reports.failure(error))
            index += len(request.payloads)
            yield answer

    async def _target(self, rules: pb.ValidationRules) -> DataTarget:
        fields = Fields()
        question = _question(rules, fields, "rules.")
        fields.require_valid()
        return await self._validate.target(question)

    def _require_payloads(self, payloads: Sequence[bytes]) -> None:
        """Raises InvalidField when a batch, or a payload of it, is too large."""
        if len(payloads) > limits.PAYLOADS_MAX:
            raise InvalidField.of("payloads", f"are {len(payloads)}; at most {limits.PAYLOADS_MAX} are allowed")
        for index, payload in enumerate(payloads):
            if len(payload) > self._data_bytes_max:
                raise InvalidField.of(
                    f"payloads[{index}]", f"has {len(payload)} bytes; at most {self._data_bytes_max} are allowed"
                )


def _question(request: pb.ValidateDataRequest | pb.ValidationRules, fields: Fields, path: str = "") -> DataQuestion:
    """What a request asks to check data against, and how."""
    key = request.WhichOneof("key")
    encoding = _encoding(request.encoding, fields, f"{path}encoding")
    if key == "version":
        fields.subject(request.version.subject, f"{path}version.subject")
        fields.number(request.version.number, f"{path}version.number", optional=True)
    elif key == "schema_id":
        fields.number(request.schema_id, f"{path}schema_id")
    elif encoding is not Encoding.FRAMED:
        fields.refuse(f"{path}key", "one of schema_id or version is required, except for framed data")
    if request.mode not in pb.ValidationMode.values():
        fields.refuse(f"{path}mode", "must be STRICT, or not given")
    rules = DataRules(
        encoding=encoding,
        strict=request.mode == pb.VALIDATION_MODE_STRICT,
        message_type=fields.line(request.message_type, f"{path}message_type", limits.MESSAGE_TYPE_CHARACTERS_MAX),
    )
    return DataQuestion(
        schema_id=request.schema_id if key == "schema_id" else None,
        subject=request.version.subject if key == "version" else None,
        number=request.version.number or None,
        rules=rules,
        assert_formats=request.assert_formats if request.HasField("assert_formats") else None,
    )


def _encoding(value: int, fields: Fields, field: str) -> Encoding:
    try:
        return Encoding(value or Encoding.JSON)
    except ValueError:
        fields.refuse(field, f"must be one of {', '.join(encoding.name for encoding in Encoding)}")
        return Encoding.JSON


def _chosen(target: DataTarget | None) -> DataTarget:
    if target is None:
        raise InvalidField.of("rules", "are required: in the first request of a stream, and after rules that failed")
    return target


def _tell(answer: pb.StreamValidateDataResponse, found: Sequence[Checked]) -> None:
    """Puts the results of a batch into its answer: counts what is valid and lists what is not."""
    listed = size = valid = 0
    for offset, checked in enumerate(found):
        problems = checked.validation.problems
        if not problems:
            valid += 1
            continue
        told = problems[: max(0, limits.ANSWER_ERRORS_MAX - listed)] if size < limits.ANSWER_ERRORS_BYTES_MAX else ()
        errors = [reports.problem(problem) for problem in told]
        listed += len(errors)
        size += sum(error.ByteSize() for error in errors)
        answer.invalid.add(
            index=answer.first_index + offset,
            errors=errors,
            truncated=checked.validation.truncated or len(told) < len(problems),
            schema_id=checked.schema_id,
        )
    answer.valid_count = valid
