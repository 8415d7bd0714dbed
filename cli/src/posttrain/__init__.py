"""The ``posttrain`` command: checks manifests and runs them on this machine."""

__version__ = "0.1.0"
