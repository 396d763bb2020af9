"""``python -m bench``."""

from bench.program import app
from bench.server import end_on_sigterm

end_on_sigterm()
app(prog_name="python -m bench")
