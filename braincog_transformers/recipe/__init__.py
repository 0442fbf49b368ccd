"""The options of a run: what each means, how a recipe is read, and which values go together.

Nothing here imports torch.
"""

from .fields import Entry
from .groups import ENTRIES, GROUPS
from .options import Options, arguments, keywords
from .reading import published, read_recipe

__all__ = ["ENTRIES", "GROUPS", "Entry", "Options", "arguments", "keywords", "published", "read_recipe"]
