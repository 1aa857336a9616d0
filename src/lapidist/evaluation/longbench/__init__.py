"""LongBench (Bai et al., ACL 2024, arXiv 2308.14508) from a directory of its files."""
