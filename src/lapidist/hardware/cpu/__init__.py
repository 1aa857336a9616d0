"""The CPU at hand as a hardware model: a law per operator, bent to what was measured on the machine."""
