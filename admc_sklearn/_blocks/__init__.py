"""The model of modalities: blocks of columns that are observed or missing together."""
