"""What is computed: configurations, the decoder family, weights, tokenizer."""
