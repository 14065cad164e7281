"""From a reference set to a model card: which decks to run, and the fits."""
