"""Running a model over text to see what numbers it meets: finds the phi of attention's mode unified.

It lives on the floor of models because it needs a decoder and a tokenizer, and neither scheduler nor sampler.
"""
