"""Time, power and energy of inference on GPUs: analytical models with learned residuals, and how they are judged."""
