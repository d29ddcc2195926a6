"""A round of chaos: work, troubles in the middle of it, everything mended and settled, everything checked."""

from collections.abc import Sequence
from typing import NamedTuple

from tests.chaos.checks import Checks
from tests.chaos.load import create
from tests.chaos.site import Site, UnsettledError
from tests.chaos.troubles import TROUBLES, Mend, Trouble


class Findings(NamedTuple):
    """What should not be, one sentence each."""

    lost: Sequence[str] = ()
    """What never came to an end."""
    wrong: Sequence[str] = ()
    """What ended otherwise than it should."""

    def __str__(self) -> str:
        return "\n".join((*(f"lost: {one}" for one in self.lost), *(f"wrong: {one}" for one in self.wrong)))


async def play(site: Site, checks: Checks, troubles: Sequence[Trouble], times: int = 1) -> Findings:
    """Let troubles strike one after the other while so many times five jobs are worked on."""
    await site.whole()
    endings = await create(site, times)
    mends: list[tuple[int, Mend]] = []
    wrong: list[str] = []
    try:
        for trouble in troubles:
            await site.under_way()
            mend = await trouble(site)
            site.struck[trouble] += 1
            if mend is not None:
                mends.append((TROUBLES.index(trouble), mend))
            wrong += await checks.database()
        for _, mend in sorted(mends, key=lambda entry: entry[0]):
            await mend()
        await site.whole()
        await site.settled(list(endings))
    except UnsettledError as error:
        return Findings([str(error), *await site.hanging()], wrong)
    return Findings(wrong=[*wrong, *await checks.database(), *await checks.jobs(endings), *checks.answers()])
