"""However a completion is cut into pieces, its client gets all of it once."""

from hypothesis import given
from hypothesis import strategies as st

from lapidist.engine.outputs import CompletionOutput, Logprob
from lapidist.server.piece import Piece, Progress


def completion(texts: list[str], tokens: int, finished: bool) -> CompletionOutput:
    """As it is after ``tokens`` tokens; a token may have brought no text."""
    return CompletionOutput(
        index=0,
        text="".join(texts[:tokens]),
        token_ids=list(range(tokens)),
        logprobs=[{token: Logprob(-1.0, 1, texts[token])} for token in range(tokens)],
        finish_reason="stop" if finished else None,
    )


@given(st.lists(st.text(max_size=2), min_size=1, max_size=20), st.data())
def test_pieces_add_up(texts: list[str], data: st.DataObject) -> None:
    # A slow client skips states; the last one always comes.
    seen = [tokens for tokens in range(1, len(texts)) if data.draw(st.booleans())]
    echo = data.draw(st.none() | st.just(Piece("prompt", [7, 8], [None, {8: Logprob(-2.0, 1, "mpt")}])))
    progress = Progress(echo)
    pieces = [progress.advance(completion(texts, tokens, False)) for tokens in seen]
    pieces.append(progress.advance(completion(texts, len(texts), True)))
    sent = [piece for piece in pieces if piece is not None]
    prefix = echo or Piece(logprobs=[])
    assert "".join(piece.text for piece in sent) == prefix.text + "".join(texts)
    assert [token for piece in sent for token in piece.token_ids] == [*prefix.token_ids, *range(len(texts))]
    assert sum(len(piece.logprobs or ()) for piece in sent) == len(prefix.logprobs or ()) + len(texts)
    assert [piece.offset for piece in sent] == [
        sum(len(earlier.text) for earlier in sent[:index]) for index in range(len(sent))
    ]
    assert all(piece.text for piece in sent[:-1])
    assert progress.advance(completion(texts, len(texts), True)) is None
