"""The language every other room speaks: operators, steps, request traces, lowering."""
