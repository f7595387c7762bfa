"""Training, evaluation and export of vaecodec's models. Used from a checkout: `python -m train`."""
