"""Searches: many trials of a recipe, or of a function of one's own, and the trade-off between them.

Importing this package loads neither TensorFlow nor keras-tuner; `tfprune.search.searching` does. keras-tuner
proposes the values; it binds to Keras 3 where that is installed, and never sees a model.

- `tfprune.search.searching.search`: runs the trials of a search, here or on several workers
- `tfprune.search.recipes.search_recipe`: the same for a recipe
- `tfprune.search.trials`: the records of the trials
- `tfprune.search.fronts`: what no other trial beats
"""

from __future__ import annotations
