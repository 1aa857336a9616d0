"""What traffic would cost: the scheduler on a virtual clock, over any hardware model."""
