"""A language model that is small and real, sentences to judge, and what it is worth before and after it is tuned.

``smollm2`` loads the model, ``reviews`` the sentences. Nothing here is vendored: both come from
packages that pip installs, and what is missing is named with its command.
"""

from __future__ import annotations

from dfo_problems.language.data import Reviews, Sentences, reviews
from dfo_problems.language.model import cache_folder, smollm2

__all__ = ["Reviews", "Sentences", "cache_folder", "reviews", "smollm2"]
