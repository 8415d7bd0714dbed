"""From child objects to facts: one module a child kind, each the only one that knows its vocabulary."""
