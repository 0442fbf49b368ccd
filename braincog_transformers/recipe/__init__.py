"""The options of a run: what each means, how a recipe is read, and which values go together.

Nothing here imports torch.
"""

from .entries import ENTRIES, REFUSED, Entry, arguments, keywords
from .groups import GROUPS
from .options import Options
from .reading import published, read_recipe

__all__ = ["ENTRIES", "GROUPS", "REFUSED", "Entry", "Options", "arguments", "keywords", "published", "read_recipe"]
