"""What a step of inference would cost on hardware the user does not own: one room per kind of machine."""
