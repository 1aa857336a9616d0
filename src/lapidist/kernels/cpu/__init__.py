"""How an operator runs on a CPU: the native library in ``native/`` and its Python side."""
