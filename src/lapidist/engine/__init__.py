"""When it runs: requests, scheduler, paged KV cache, sampler."""
