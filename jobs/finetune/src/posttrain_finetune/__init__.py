"""The fine-tuning stage: trains a model on demonstrations and publishes it."""
