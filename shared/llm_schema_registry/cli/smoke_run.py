"""`llmsr smoke`."""

from __future__ import annotations

from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document, seconds
from llm_schema_registry.cli.session import Session
from llm_schema_registry.cli.smoke import Smoke


async def smoke(session: Session, options: Smoke) -> ExitCode:
    """Writes what was tried. REFUSED unless everything passed."""
    del options
    async with session.connection.admin() as admin:
        answer = await admin.call(admin.system.RunSmokeTest, pb.RunSmokeTestRequest())
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        rows = [
            (each.name, "passed" if each.passed else "FAILED", f"{seconds(each.duration) * 1000:.0f} ms", each.message)
            for each in answer.checks
        ]
        session.output.table(("check", "result", "took", "found"), rows)
        failed = sum(not each.passed for each in answer.checks)
        session.output.text(
            f"\n{'Passed' if answer.passed else f'NOT PASSED: {failed} of {len(answer.checks)} failed'}."
        )
    return ExitCode.FINE if answer.passed else ExitCode.REFUSED
