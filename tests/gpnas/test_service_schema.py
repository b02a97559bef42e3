"""Whatever the OpenAPI document lets one send, the service answers as it says, and never fails."""

from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from gpnas.service.limits import Limits
from tests.gpnas.searched import searched
from tests.gpnas.served import served


def test_the_service_is_as_its_document_says(tmp_path: Path) -> None:
    searched(tmp_path / "small", 2)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "journal.sqlite").write_bytes(b"torn")
    with served(tmp_path, limits=Limits(rate=1e6, burst=1e6, strangers=1e6)) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [each.ok() for each in schema.get_all_operations()]
        tried = sum(
            answered(client, operation)
            for operation in operations
            if not operation.path.endswith("/events")  # a stream has no end
        )
    assert len(operations) > 25
    assert tried > 100


def answered(client: TestClient, operation: Any) -> int:
    """How many requests of one operation were answered, each as its document says."""
    documented = {int(status) for status in operation.definition.raw["responses"] if status.isdecimal()}
    count = 0

    @settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        nonlocal count
        if isinstance(case.body, dict) and case.body.get("kind") == "managed":
            return  # it would start Ray
        sent = case.as_transport_kwargs(base_url="http://localhost")
        names = ("params", "headers", "json", "content", "data")
        response = client.request(
            sent["method"], sent["url"], **{name: sent[name] for name in names if sent.get(name) is not None}
        )
        assert response.status_code in documented, (operation.label, response.status_code, response.text)
        assert response.status_code != 500, response.text
        count += 1

    one()
    return count
