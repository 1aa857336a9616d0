"""How fast a model is served: replay a request trace and measure what each client saw."""
