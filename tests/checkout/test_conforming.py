"""The public API as a whole, from outside, by the checks that `duet conform` holds any implementation to."""

from lab.bench.orders import Origin
from lab.client import open_client
from lab.conform.examination import FAIL, examine
from lab.order import STYLES
from lab.targets import Target
from tests.checkout.world import World
from tests.lab.small_checkout import serving_app


async def test_it_conforms_in_both_styles(world: World) -> None:
    async with serving_app(world.app) as port, open_client() as client:
        target = Target("checkout", Origin("127.0.0.1", port), "", "", {})
        examination = await examine(client, target, STYLES)
    failed = {(r.check.name, r.style): r.seen for r in examination.results if r.outcome == FAIL}
    failed.pop(("no-member", "choreography"), None)  # the rule is the rewards service's, which is a fake here
    assert failed == {}
    assert tuple(examination.styles) == STYLES
