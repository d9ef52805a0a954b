"""The invoice service's settings: `INVOICE_*` in the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from servicekit.settings import BrokerUser, ParticipantSettings


class Settings(ParticipantSettings):
    """What the invoice service can be told, beyond what every service can."""

    model_config = SettingsConfigDict(env_prefix="INVOICE_")

    port: int = Field(8004, ge=1, le=65_535)
    nats_user: BrokerUser = "invoice"
    conductor_token: SecretStr = Field(min_length=16)
