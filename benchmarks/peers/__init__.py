"""The same checkpoint in other engines, measured beside ours."""
