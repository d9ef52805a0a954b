"""The rewards service's settings: `REWARDS_*` in the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from servicekit.settings import BrokerUser, ParticipantSettings


class Settings(ParticipantSettings):
    """What the rewards service can be told, beyond what every service can."""

    model_config = SettingsConfigDict(env_prefix="REWARDS_")

    port: int = Field(8003, ge=1, le=65_535)
    nats_user: BrokerUser = "rewards"
    conductor_token: SecretStr = Field(min_length=16)
