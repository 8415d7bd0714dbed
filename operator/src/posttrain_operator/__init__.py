"""The control loop: parse, observe, plan, apply, status; the same for every kind and for every cluster."""
