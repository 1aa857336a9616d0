"""RULER with the bundled model's tokenizer and generated essays."""

from lapidist.bundled import TINY
from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.evaluation.prompt_frame import chat_frame, plain_frame
from lapidist.evaluation.ruler.questions import Question, QuestionSet
from lapidist.evaluation.ruler.tasks import Ruler, sentences_of
from lapidist.models.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_directory(TINY)
SENTENCES = sentences_of(generated_prose(30_000))
QUESTIONS = QuestionSet(
    "qa_1",
    tuple(Question(f"Who met number {i}?", (f"Answer {i}",), (2 * i,), (2 * i + 1,)) for i in range(20)),
    tuple(f"Text {i} says a few things about number {i // 2}." for i in range(40)),
)


def ruler(phrasing: str = "ruler", chat: bool = False) -> Ruler:
    frame = chat_frame(TOKENIZER) if chat else plain_frame(TOKENIZER)
    return Ruler(TOKENIZER, frame, SENTENCES, phrasing, {"qa_1": QUESTIONS})
