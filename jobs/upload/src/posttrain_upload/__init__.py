"""The upload stage: publishes an artifact in the layout of the Hugging Face Hub, and to a Hub when one is set."""
