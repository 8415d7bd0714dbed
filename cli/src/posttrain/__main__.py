"""``python -m posttrain`` is the ``posttrain`` command."""

from posttrain.main import main

main()
