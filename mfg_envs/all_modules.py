"""Every environment's module by name, as other PettingZoo suites have it."""

from types import ModuleType

from mfg_envs import beach_bar_v0, four_rooms_v0, lq_v0, price_impact_v0

all_modules: dict[str, ModuleType] = {
    "lq_v0": lq_v0,
    "price_impact_v0": price_impact_v0,
    "beach_bar_v0": beach_bar_v0,
    "four_rooms_v0": four_rooms_v0,
}
