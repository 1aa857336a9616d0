"""What evaluations of long prompts share: methods, prompts run through the engine, results to go on from, heat maps."""
