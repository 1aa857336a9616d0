"""Random short traces, for property tests."""

from hypothesis import strategies as st

from lapidist.workload.trace import TraceRequest

requests = st.builds(
    TraceRequest,
    arrival_seconds=st.floats(0, 0.05),
    prompt_tokens=st.integers(1, 150),
    output_tokens=st.integers(1, 60),
)
traces = st.lists(requests, min_size=1, max_size=12).map(
    lambda found: tuple(sorted(found, key=lambda request: request.arrival_seconds))
)
