"""RULER's synthetic tasks (Hsieh et al., COLM 2024, arXiv 2404.06654), generated here."""
