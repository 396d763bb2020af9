"""Why an answer cannot be read on. What came before it stays."""


class AnswerError(Exception):
    """An agent's answer is wrong: `code` says how, `line` where, from 1; 0 where it is no line.

    Codes: `answer_bad_utf8`, `answer_bad_json`, `answer_too_deep`, `answer_bad_chunk`, `answer_out_of_order`,
    `answer_line_too_long`, `answer_too_large`, `answer_truncated`, `answer_empty`, and `answer_error` where the agent
    itself says that it failed.
    """

    def __init__(self, code: str, message: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.code = code
        self.line = line
