"""A round of chaos: start jobs, inject faults, repair them, wait until everything settles, and check the results."""

from collections.abc import Sequence
from typing import NamedTuple

from tests.chaos.checks import Checks
from tests.chaos.cluster import Cluster, UnsettledError
from tests.chaos.faults.catalogue import FAULTS, HARMLESS
from tests.chaos.faults.repairs import Fault, Repair
from tests.chaos.load import create


class Findings(NamedTuple):
    """The problems of a round, one sentence each."""

    lost: Sequence[str] = ()
    """Work that did not finish."""
    wrong: Sequence[str] = ()
    """Results and records that are wrong."""

    def __str__(self) -> str:
        return "\n".join((*(f"lost: {one}" for one in self.lost), *(f"wrong: {one}" for one in self.wrong)))


async def play_round(cluster: Cluster, checks: Checks, faults: Sequence[Fault], times: int = 1) -> Findings:
    """Inject faults one after the other while workers process `times` sets of five jobs."""
    await cluster.wait_until_available()
    expected_outcomes = await create(cluster, times)
    cluster.disturbed = False
    repairs: list[tuple[int, Repair]] = []
    wrong: list[str] = []
    try:
        for fault in faults:
            await cluster.wait_for_progress()
            repair = await fault(cluster)
            cluster.fault_counts[fault] += 1
            if repair is not None:
                repairs.append((FAULTS.index(fault), repair))
                cluster.disturbed |= fault not in HARMLESS
            wrong += await checks.database()
        for _, repair in sorted(repairs, key=lambda entry: entry[0]):
            await repair()
        await cluster.wait_until_available()
        await cluster.wait_until_settled(list(expected_outcomes))
    except UnsettledError as error:
        return Findings([str(error), *await cluster.unfinished_work()], wrong)
    return Findings(
        wrong=[*wrong, *await checks.database(), *await checks.jobs(expected_outcomes), *checks.responses_and_logs()]
    )
