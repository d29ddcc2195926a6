"""Tasks whose creator does not want them back."""

import pytest

from tests.support.protocol import Client, refused


@pytest.mark.parametrize(
    ("prefer", "minimal"),
    [
        ([], False),
        (["return=minimal"], True),
        (['respond-async, RETURN="minimal"; foo=bar'], True),
        (["wait=10", "return = minimal"], True),
        (["return=representation, return=minimal"], False),
        (["minimal", "return", ""], False),
    ],
)
async def test_the_answer_is_as_short_as_preferred(
    client: Client, stage_type: str, prefer: list[str], *, minimal: bool
) -> None:
    """The tasks are there either way, in their order."""
    stage = await client.stage(await client.job(), stage_type)
    body = [{"data": {"number": number}} for number in range(3)]
    headers = [("Prefer", value) for value in prefer]
    response = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=body, headers=headers)
    tasks = (await client.read(stage))["tasks"]
    assert [task["data"]["number"] for task in tasks] == [0, 1, 2]
    assert (response.status_code, response.json()) == (201, {"created": 3} if minimal else tasks)
    assert response.headers.get("Preference-Applied") == ("return=minimal" if minimal else None)


async def test_a_refusal_is_the_same(client: Client, stage_type: str) -> None:
    """None are created as well as any; what has ended takes none."""
    job = await client.job()
    stage = await client.stage(job, stage_type)
    path, headers = f"/v1/stages/{stage['id']}/tasks", {"Prefer": "return=minimal"}
    assert (await client.http.post(path, json=[], headers=headers)).json() == {"created": 0}
    await client.move(job, "ABORTED")
    refused(await client.http.post(path, json=[], headers=headers), 400, "STAGE_IN_FINITE_STATE")
