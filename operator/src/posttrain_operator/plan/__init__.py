"""From facts to the children that should exist: pure functions, one module a kind plus builders."""
