"""Which trials there are: YAML files and the one strict loader that reads them."""

from search_spaces.loader import Overrides, available, load_space, stored_space
from search_spaces.space import Space

__all__ = ["Overrides", "Space", "available", "load_space", "stored_space"]
