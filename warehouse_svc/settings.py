"""The warehouse service's settings: `WAREHOUSE_*` in the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from servicekit.settings import BrokerUser, ParticipantSettings
from warehouse_svc.stock import MAX_ON_HAND, StockRules


class Settings(ParticipantSettings):
    """What the warehouse service can be told, beyond what every service can."""

    model_config = SettingsConfigDict(env_prefix="WAREHOUSE_")

    port: int = Field(8002, ge=1, le=65_535)
    nats_user: BrokerUser = "warehouse"
    conductor_token: SecretStr = Field(min_length=16)
    initial_stock: int = Field(1_000_000, ge=0, le=MAX_ON_HAND)
    dev_skus: bool = False

    @property
    def stock_rules(self) -> StockRules:
        """How SKUs that nobody has stocked yet are treated."""
        return StockRules(self.initial_stock, self.dev_skus)
