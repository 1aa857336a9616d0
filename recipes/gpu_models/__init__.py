"""How the fitted GPU models that ship with Lapidist were made; rerunnable end to end."""
