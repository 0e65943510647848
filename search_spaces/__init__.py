"""Which trials there are: YAML files and the one strict loader that reads them."""

from typing import TYPE_CHECKING, Any

from search_spaces.loader import Overrides, available, load_space, stored_space

if TYPE_CHECKING:
    from search_spaces.space import Space

__all__ = ["Overrides", "Space", "available", "load_space", "stored_space"]


def __getattr__(name: str) -> Any:
    """Import `Space` when it is first asked for: it needs the defenses, and so torch."""
    if name == "Space":
        from search_spaces.space import Space

        return Space
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
