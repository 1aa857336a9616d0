"""What serving delivers and what a cut costs, measured."""
