"""Classes of context length."""

import torch

from lapidist.models.calibration.context_buckets import bucket_end, bucket_name, bucket_of, buckets_of, chunks


def test_buckets_double() -> None:
    found = {context: bucket_of(context) for context in (1, 128, 129, 256, 257, 512, 2048, 2049, 131072)}
    assert found == {1: 0, 128: 0, 129: 1, 256: 1, 257: 2, 512: 2, 2048: 4, 2049: 5, 131072: 10}
    assert [bucket_name(bucket) for bucket in range(3)] == ["1-128", "129-256", "257-512"]
    contexts = torch.arange(1, 5000)
    assert buckets_of(contexts).tolist() == [bucket_of(context) for context in contexts.tolist()]


def test_chunks_cover_a_sequence_and_cross_no_bucket() -> None:
    for length in (0, 1, 127, 128, 129, 1000, 3000):
        spans = list(chunks(length))
        assert [position for span in spans for position in span] == list(range(length))
        for span in spans:
            assert len(span) <= 512
            assert (
                bucket_of(span.start + 1)
                == bucket_of(span.stop)
                <= bucket_of(bucket_end(bucket_of(span.stop)))
            )
