"""Coupling by the code: on small trees that are made up, one rule at a time, and on the real one."""

import json
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.coupling.drawing import draw
from lab.coupling.graph import BROKER, Factor, Knowledge
from lab.coupling.heard import meets
from lab.coupling.knowledge import CHOREOGRAPHY, ORCHESTRATION, knowledge
from lab.errors import LabError

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = frozenset({"email", "warehouse", "rewards"})

CONDUCTOR = """
    from checkout import commands

    CALLS = {
        "email": Call("/emails", commands.send, commands.Sent),
    }
"""
COMMANDS = '''
    """Tells of "/emails", which is no call."""
    from pydantic import BaseModel

    class Reply(BaseModel):
        order_id: str

    class Sent(Reply):
        delivery: str

    def send(order):
        to = order.customer
        return {"order_id": order.id, "to": {"name": to["name"], "email": to["email"]},
                "lines": [{"sku": line["sku"]} for line in order.lines], "ship_to": order.ship_to}
'''
EMAIL_APP = """
    from email_svc.consumer import Heard

    @app.post("/emails")
    async def send(command: Heard) -> None: ...

    @app.get("/effects")
    async def effects() -> None: ...
"""
EMAIL_CONSUMER = """
    from typing import Annotated
    from pydantic import BaseModel, Field

    SUBJECT = "orders.created"

    class Who(BaseModel):
        email: Annotated[str, Field(min_length=1)]

    class Heard(BaseModel):
        order_id: str
        customer: Who | None
        total: int = Field(alias="total_minor")

    def participant():
        return Participant(bus, stream="ORDERS", subject=SUBJECT, model=Heard)
"""
CHECKOUT_TELLS = ["orders.created", "$JS.API.STREAM.CREATE.ORDERS"]
EMAIL_HEARS = ["outcomes.email", "$JS.API.CONSUMER.CREATE.ORDERS.email.orders.created"]


def make_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
    return root


def service(name: str, port: int, publish: list[str] | None = None) -> str:
    rights = f'\n[broker]\npublish = {json.dumps(publish)}\nsubscribe = ["_INBOX.>"]\n' if publish else ""
    return f'name = "{name}"\nport = {port}\n{rights}'


def conducted(root: Path, **changes: str) -> Path:
    """A tree of checkout, which conducts, and the e-mail service; `changes` are files, `__` being a slash."""
    files = {
        "checkout/service.toml": service("checkout", 8000, CHECKOUT_TELLS),
        "checkout/__init__.py": "",
        "checkout/orchestration.py": CONDUCTOR,
        "checkout/choreography.py": "from checkout import events\n",
        "checkout/events.py": "",
        "checkout/commands.py": COMMANDS,
        "email_svc/service.toml": service("email", 8001, EMAIL_HEARS),
        "email_svc/app.py": EMAIL_APP,
        "email_svc/consumer.py": EMAIL_CONSUMER,
    }
    given = {name.replace("__", "/").replace("_toml", ".toml"): text for name, text in changes.items()}
    given = {name if "." in name else f"{name}.py": text for name, text in given.items()}
    return make_tree(root, files | given)


def fields_of(graph: Knowledge, knower: str, known: str, detail: str) -> set[str]:
    (found,) = (
        one
        for one in graph.known_by(knower)
        if (one.known, one.what) == (known, "schema") and one.detail.startswith(detail)
    )
    return set(found.fields)


def details(graph: Knowledge, knower: str, what: str) -> set[tuple[str, str]]:
    return {(one.known, one.detail) for one in graph.known_by(knower) if one.what == what}


# The conductor, made up.


def test_a_map_of_calls_is_names_addresses_commands_and_replies(tmp_path: Path) -> None:
    graph = knowledge(conducted(tmp_path), ORCHESTRATION)
    assert details(graph, "checkout", "name") == {("email", "email")}
    assert details(graph, "checkout", "address") == {("email", "path /emails")}
    told = {"order_id", "to.name", "to.email", "lines.sku", "ship_to"}
    assert fields_of(graph, "checkout", "email", "command") == told
    assert fields_of(graph, "checkout", "email", "reply") == {"order_id", "delivery"}
    (call,) = graph.links
    assert (call.source, call.target, call.what) == ("checkout", "email", "POST /emails")
    assert (call.evidence, call.served) == ("checkout/orchestration.py:4", "email_svc/app.py:4")
    assert set(call.reads) == {"order_id", "customer.email", "total_minor"}


def test_what_the_conductor_imports_counts_and_what_it_does_not_is_the_other_styles(tmp_path: Path) -> None:
    tree = conducted(
        tmp_path,
        checkout__orchestration="from checkout.calls import CALLS\n",
        checkout__calls=CONDUCTOR,
        checkout__unused='ALSO = {"email": Call("/effects")}\n',
    )
    wanted = {("email", "path /emails")}
    assert details(knowledge(tree, ORCHESTRATION), "checkout", "address") == wanted
    assert knowledge(tree, CHOREOGRAPHY).whom("checkout", "name") == set()


def test_who_is_called_knows_nobody(tmp_path: Path) -> None:
    graph = knowledge(conducted(tmp_path), ORCHESTRATION)
    assert graph.known_by("email") == ()
    assert BROKER not in graph.nodes


def test_a_field_that_is_called_as_a_service_is_no_name(tmp_path: Path) -> None:
    graph = knowledge(
        conducted(tmp_path, checkout__orchestration="from checkout import commands\n"), ORCHESTRATION
    )
    assert graph.known_by("checkout") == ()


def test_a_path_is_an_address_wherever_it_is_called(tmp_path: Path) -> None:
    code = 'async def forget(client, key):\n    await client.post(f"/emails/{key}/forget")\n'
    app = EMAIL_APP + '\n    @app.post("/emails/{order_id}/forget")\n    async def forget() -> None: ...\n'
    tree = conducted(tmp_path, checkout__orchestration=code, email_svc__app=app)
    graph = knowledge(tree, ORCHESTRATION)
    assert details(graph, "checkout", "address") == {("email", "path /emails/{}/forget")}
    assert graph.whom("checkout", "name") == {"email"}


def test_a_path_that_several_serve_or_the_caller_itself_is_nobodys_address(tmp_path: Path) -> None:
    code = 'PATHS = ["/effects", "/checkouts"]\n'
    own = '@app.post("/checkouts")\nasync def place() -> None: ...\n'
    other = '@app.get("/effects")\nasync def effects() -> None: ...\n'
    tree = conducted(tmp_path, checkout__orchestration=code, checkout__app=own)
    make_tree(tree, {"stock_svc/service.toml": service("stock", 8002), "stock_svc/app.py": other})
    assert knowledge(tree, ORCHESTRATION).known_by("checkout") == ()


def test_a_call_that_nobody_serves_is_told_apart(tmp_path: Path) -> None:
    moved = EMAIL_APP.replace('"/emails"', '"/v2/emails"')
    (call,) = knowledge(conducted(tmp_path, email_svc__app=moved), ORCHESTRATION).links
    assert (call.what, call.served, call.reads) == ("POST /emails", "", ())


def test_settings_of_an_address_count_for_who_calls_alone(tmp_path: Path) -> None:
    settings = (
        "class Settings(ServiceSettings):\n    email_url: str\n    email_token: str\n    public_url: str\n"
    )
    events = "from checkout.settings import Settings\n"
    tree = conducted(tmp_path, checkout__settings=settings, checkout__events=events)
    wanted = {("email", "setting email_url"), ("email", "setting email_token")}
    assert details(knowledge(tree, ORCHESTRATION), "checkout", "address") >= wanted
    assert details(knowledge(tree, CHOREOGRAPHY), "checkout", "address") == {(BROKER, "url")}


STEPS = """
    [email]
    path = "/emails"
    command = ["customer.name", "lines"]
    reply = { delivery = "text" }
    otherwise = "never"
"""


def test_a_conductor_whose_steps_are_in_a_settings_file_knows_as_much(tmp_path: Path) -> None:
    settings = 'FILE = "steps.toml"\n\ndef load(names):\n    return [f"{name}_url" for name in names]\n'
    tree = conducted(
        tmp_path,
        checkout__orchestration="from checkout import settings\n",
        checkout__events="from checkout import settings\n",
        checkout__settings=settings,
        checkout__steps_toml=STEPS,
    )
    graph = knowledge(tree, ORCHESTRATION)
    assert details(graph, "checkout", "name") == {("email", "email")}
    assert details(graph, "checkout", "address") == {
        ("email", "path /emails"),
        ("email", "setting email_url"),
    }
    assert fields_of(graph, "checkout", "email", "command") == {"customer.name", "lines"}
    assert fields_of(graph, "checkout", "email", "reply") == {"delivery"}
    assert "checkout/steps.toml:2" in {one.evidence for one in graph.knows}
    assert graph.whom("checkout", "name") != knowledge(tree, CHOREOGRAPHY).whom("checkout", "name") == set()


def test_a_step_is_whose_path_it_has_whatever_it_is_called(tmp_path: Path) -> None:
    steps = '[[step]]\nname = "letter"\npath = "/emails"\nfields = ["order_id"]\n'
    tree = conducted(tmp_path, checkout__orchestration="", checkout__steps_toml=steps)
    graph = knowledge(tree, ORCHESTRATION)
    assert graph.whom("checkout", "address") == {"email"}
    assert fields_of(graph, "checkout", "email", "fields") == {"order_id"}


# The dance, made up.


def test_who_hears_knows_the_channel_and_the_schema_and_no_name(tmp_path: Path) -> None:
    graph = knowledge(conducted(tmp_path), CHOREOGRAPHY)
    assert (BROKER, "hears orders.created of ORDERS") in details(graph, "email", "channel")
    assert fields_of(graph, "email", "checkout", "event Heard") == {
        "order_id",
        "customer.email",
        "total_minor",
    }
    assert graph.whom("email", "name") == set()
    assert graph.whom("checkout", "name") == set()
    assert ("email", "checkout") in graph.depends
    assert ("checkout", BROKER) in graph.depends


def test_a_channel_with_a_services_name_in_it_is_its_name(tmp_path: Path) -> None:
    hears = [*EMAIL_HEARS, "$JS.API.CONSUMER.CREATE.OUTCOMES.email.outcomes.stock"]
    tree = conducted(tmp_path, email_svc__service_toml=service("email", 8001, hears))
    make_tree(tree, {"stock_svc/service.toml": service("stock", 8002, ["outcomes.stock"])})
    graph = knowledge(tree, CHOREOGRAPHY)
    assert graph.whom("email", "name") == {"stock"}
    assert ("email", "stock") in graph.depends


def test_a_channel_of_everybody_names_nobody_though_one_depends_on_them(tmp_path: Path) -> None:
    hears = [*CHECKOUT_TELLS, "$JS.API.CONSUMER.CREATE.OUTCOMES.timeline.outcomes.*"]
    events = """
        from pydantic import BaseModel

        class Outcome(BaseModel):
            status: str

        def read(content):
            return CloudEvent[Outcome].model_validate_json(content)
    """
    tree = conducted(
        tmp_path, checkout__service_toml=service("checkout", 8000, hears), checkout__events=events
    )
    graph = knowledge(tree, CHOREOGRAPHY)
    assert {one.known for one in graph.known_by("checkout")} == {BROKER}
    assert fields_of(graph, "checkout", BROKER, "event Outcome") == {"status"}
    assert ("checkout", "email") in graph.depends


def test_a_wildcard_that_stands_for_no_name_leaves_the_author_known(tmp_path: Path) -> None:
    tells = [*CHECKOUT_TELLS, "orders.cancelled"]
    hears = ["$JS.API.CONSUMER.CREATE.ORDERS.email.orders.*", "outcomes.email"]
    heard = """
        from pydantic import BaseModel

        class Heard(BaseModel):
            order_id: str

        def read(content):
            return CloudEvent[Heard].model_validate_json(content)
    """
    tree = conducted(
        tmp_path,
        checkout__service_toml=service("checkout", 8000, tells),
        email_svc__service_toml=service("email", 8001, hears),
        email_svc__consumer=heard,
    )
    graph = knowledge(tree, CHOREOGRAPHY)
    assert fields_of(graph, "email", "checkout", "event Heard") == {"order_id"}


def test_an_event_is_told_whole_whatever_is_read_of_it(tmp_path: Path) -> None:
    events = """
        from pydantic import BaseModel

        class Created(BaseModel):
            order_id: str
            secret: str

        EMITTED = Flow("send", "shop.Created", "orders.created", "ORDERS", "An order.", Created)
    """
    graph = knowledge(conducted(tmp_path, checkout__events=events), CHOREOGRAPHY)
    (sent,) = (link for link in graph.links if (link.source, link.target) == (BROKER, "email"))
    assert set(sent.fields) == {"order_id", "secret"}
    assert "secret" not in sent.reads


@pytest.mark.parametrize(
    ("one", "other", "met"),
    [
        ("orders.created", "orders.created", True),
        ("outcomes.*", "outcomes.email", True),
        ("outcomes.*", "outcomes.email.late", False),
        ("outcomes", "outcomes.email", False),
        ("outcomes.>", "outcomes.email.late", True),
        ("orders.created", "orders.cancelled", False),
        ("*.created", "orders.>", True),
    ],
)
def test_subjects_meet_as_nats_has_it(one: str, other: str, met: bool) -> None:
    assert meets(one, other) is met
    assert meets(other, one) is met


# Counts, digest, refusals.


def test_scf_falls_when_the_conductor_gets_one_more_to_know(tmp_path: Path) -> None:
    def conductor_of(number: int) -> Knowledge:
        root = tmp_path / str(number)
        calls = "".join(f'    "s{n}": Call("/s{n}"),\n' for n in range(number))
        files = {
            "checkout/service.toml": service("checkout", 8000),
            "checkout/orchestration.py": f"CALLS = {{\n{calls}}}\n",
        }
        for n in range(number):
            files[f"s{n}_svc/service.toml"] = service(f"s{n}", 8001 + n)
            files[f"s{n}_svc/app.py"] = f'@app.post("/s{n}")\ndef tell(): ...\n'
        return knowledge(make_tree(root, files), ORCHESTRATION)

    before, after = conductor_of(3), conductor_of(4)
    assert (before.factor(), after.factor()) == (Factor(3, 4), Factor(4, 5))
    assert before.factor().value == pytest.approx(0.25)
    assert after.factor().value == pytest.approx(0.2)
    ads = [graph.degrees()[0].as_document()["ads"] for graph in (before, after)]
    assert ads == [3, 4]


def test_the_digest_changes_with_what_is_known_and_not_with_where_it_stands(tmp_path: Path) -> None:
    def digest(name: str, **changes: str) -> str:
        return knowledge(conducted(tmp_path / name, **changes), ORCHESTRATION).digest()

    first = digest("a")
    assert digest("b", checkout__orchestration="# moved\n\n" + textwrap.dedent(CONDUCTOR)) == first
    assert digest("c", checkout__commands=COMMANDS.replace("delivery", "sent_at")) != first
    assert digest("d", checkout__commands=COMMANDS.replace('"sku":', '"article":')) != first
    assert digest("e", email_svc__app=EMAIL_APP.replace('"/emails"', '"/letters"')) != first


def test_a_tree_is_read_and_never_run(tmp_path: Path) -> None:
    tree = conducted(tmp_path, checkout__commands=COMMANDS + '\n    raise SystemExit("imported")\n')
    assert knowledge(tree, ORCHESTRATION).whom("checkout", "name") == {"email"}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no style ballet"):
        knowledge(conducted(tmp_path / "a"), "ballet")
    with pytest.raises(LabError, match=r"commands\.py"):
        knowledge(conducted(tmp_path / "b", checkout__commands="def"), ORCHESTRATION)
    with pytest.raises(LabError, match=r"steps\.toml"):
        knowledge(conducted(tmp_path / "c", checkout__steps_toml="["), ORCHESTRATION)


def test_the_document_is_plain_json(tmp_path: Path) -> None:
    document = knowledge(conducted(tmp_path), CHOREOGRAPHY).as_document()
    assert json.loads(json.dumps(document)) == json.loads(json.dumps(document, sort_keys=True))
    (checkout,) = (each for each in document["degrees"] if each["service"] == "checkout")
    assert (checkout["ais"], checkout["ads"], checkout["ads_knowledge"]) == (1, 1, 1)


# The real tree.


def test_the_real_conductor_knows_name_address_and_schema_of_all_three() -> None:
    graph = knowledge(ROOT, ORCHESTRATION)
    for what in ("name", "address", "schema"):
        assert graph.whom("checkout", what) == SERVICES
    for name in SERVICES:
        assert graph.known_by(name) == ()
        addresses = {detail for known, detail in details(graph, "checkout", "address") if known == name}
        assert addresses >= {f"setting {name}_url", f"setting {name}_token"}
    assert all(link.served for link in graph.links)
    assert fields_of(graph, "checkout", "warehouse", "command") == {
        "order_id",
        "lines.sku",
        "lines.quantity",
        "ship_to",
    }


def test_the_real_first_dancer_knows_nobody_and_is_known_by_its_event() -> None:
    graph = knowledge(ROOT, CHOREOGRAPHY)
    assert {one.known for one in graph.known_by("checkout")} == {BROKER}
    for name in SERVICES:
        assert graph.whom(name, "name") == set()
        assert graph.whom(name, "schema") == {"checkout"}
        assert (BROKER, "hears orders.created of ORDERS") in details(graph, name, "channel")
    read = fields_of(graph, "rewards", "checkout", "event")
    assert read == {"order_id", "customer.email", "customer.rewards_member", "currency", "total_minor"}
    for link in graph.links:
        if link.source == BROKER and link.target in SERVICES:
            assert set(link.reads) < set(link.fields)


def test_the_real_checkout_depends_on_three_in_one_style_and_on_who_comes_in_the_other() -> None:
    called, heard = (knowledge(ROOT, style).degrees()[0] for style in (ORCHESTRATION, CHOREOGRAPHY))
    assert set(called.depends_on) == SERVICES
    assert set(called.knows) == SERVICES
    assert set(heard.depends_on) == SERVICES | {BROKER}  # their outcomes complete the order
    assert set(heard.knows) == {BROKER}
    assert set(heard.known_by) == SERVICES


# The pictures.


def classes(svg: str) -> list[str]:
    groups = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    return [group.get("class", "") for group in groups]


def test_two_pictures_of_the_same_have_no_mark(tmp_path: Path) -> None:
    graph = knowledge(conducted(tmp_path), CHOREOGRAPHY)
    one, two = draw(graph, graph)
    assert one == two
    states = {word for each in classes(one) for word in each.split()}
    assert states & {"added", "removed", "changed"} == set()
    assert {"event", "knows"} <= states


def test_what_is_new_gone_or_changed_is_marked_in_its_own_picture(tmp_path: Path) -> None:
    before = knowledge(conducted(tmp_path / "a"), ORCHESTRATION)
    changed = conducted(tmp_path / "b", checkout__commands=COMMANDS.replace("delivery", "sent_at"))
    app = '@app.post("/stock")\ndef take(): ...\n'
    make_tree(
        changed, {"stock_svc/service.toml": service("stock<", 8002).replace("<", ""), "stock_svc/app.py": app}
    )
    after = knowledge(changed, ORCHESTRATION)
    old, new = draw(before, after)
    assert sorted(set(classes(old))) == ["call same", "knows changed", "same"]
    assert sorted(set(classes(new))) == ["added", "call same", "knows changed", "same"]
    assert "+ stock" in new
    gone, _ = draw(after, before)
    assert "- stock" in gone
    assert "removed" in classes(gone)


def test_a_picture_needs_nothing_from_elsewhere_and_escapes_names() -> None:
    graph = Knowledge(ORCHESTRATION, ("checkout", "a<b"), (), (), ())
    picture, _ = draw(graph, graph)
    assert "a&lt;b" in picture
    assert "prefers-color-scheme:dark" in picture
    assert "currentColor" in picture
    assert "url(" not in picture
    assert picture.count("http") == 1  # the name of the format
