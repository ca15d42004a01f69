"""The model of modalities: blocks of columns that are there or missing together."""
