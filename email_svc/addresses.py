"""Addresses taken apart for headers and envelopes. Refuses lists, and what is not one addr-spec."""

from dataclasses import dataclass
from email.utils import getaddresses

from email_validator import validate_email


@dataclass(frozen=True)
class Address:
    """One address, its domain in ASCII. `ascii_only`: any mail server takes it, without SMTPUTF8."""

    local_part: str
    domain: str
    ascii_only: bool
    display_name: str = ""

    @property
    def addr_spec(self) -> str:
        """The bare address, as an envelope has it."""
        return f"{self.local_part}@{self.domain}"


def parse_address(addr_spec: str, display_name: str = "") -> Address:
    """Take one addr-spec apart. Raises ValueError.

    More lenient than the edge: what was accepted and stored once is not judged again.
    """
    parsed = validate_email(addr_spec, check_deliverability=False, globally_deliverable=False)
    return Address(parsed.local_part, parsed.ascii_domain, parsed.ascii_email is not None, display_name)


def parse_sender(sender: str) -> Address:
    """The address of `orders@shop.example` or `My Shop <orders@shop.example>`. Raises ValueError."""
    found = getaddresses([sender])
    if len(found) != 1 or any(ord(character) < 32 for character in sender):
        raise ValueError("not one address (quote a name that holds a comma)")
    display_name, addr_spec = found[0]
    address = parse_address(addr_spec, display_name)
    if not address.ascii_only:
        raise ValueError("the sender's local part must be ASCII: not every mail server takes another")
    return address
