"""The command that serves a model: serve."""

import dataclasses
from pathlib import Path
from typing import Annotated

from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Positive, Range
from modernbert_jax.serving.settings import BATCH_TOKENS_ON_CPU, Settings

from . import devices as device_limits
from . import output as printing
from .launch import CpuDevices
from .options import Dtype, Flat, Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve(Settings):
    """Serve a model over HTTP: vectors, sparse vectors, token vectors, rerankers, classifiers.

    The routes are OpenAI's /v1/embeddings and /v1/models, those of text-embeddings-inference, and a
    page at / to try the model. Programs are compiled before the first request, which takes a minute
    for a base model on a CPU. SIGTERM ends the server when accepted requests are answered.
    """

    model: str
    """Checkpoint of any format, or the name of one on the hub."""
    name: str = ""
    """Name of the model for clients. Without it: the name or last folder of --model."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is all of this machine's."""
    port: Annotated[int, Range(0, 65535)] = 8080
    """Port to listen at; 0 takes a free one and prints it."""
    api_key_file: Path | None = None
    """File with API keys, one per line, any of which a request needs. None takes the key in the
    environment variable MODERNBERT_JAX_API_KEY, or lets every request pass."""
    dtype: Dtype = "float32"
    """Type of the computation."""
    weights: Weights = "float32"
    """Type in which matrices are kept in memory; int8 has a scale for each channel."""
    grace: Positive = 30.0
    """Seconds that accepted requests have to finish after SIGTERM."""
    access_log: bool = True
    """Write a line to stderr for each request: method, route, status, time; never its text."""
    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)

    def run(self) -> None:
        """Load, compile and serve."""
        try:
            from modernbert_jax.serving import guard, server
        except ModuleNotFoundError as error:
            raise UserError(
                f"serve needs the package {error.name}; install it with:"
                " pip install 'modernbert-jax[serve]'"
            ) from None
        keys = guard.keys_from(self.api_key_file)
        with server.bind(self.host, self.port) as bound:
            size = self.batch_tokens or BATCH_TOKENS_ON_CPU
            self.devices.expose(device_limits.for_inference(self.model, size))
            from modernbert_jax.pretrained import ModernBert
            from modernbert_jax.serving.service import Service

            own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)}
            with printing.warnings_in_lines(), printing.attention_choices():
                bert = ModernBert.from_pretrained(
                    self.model, dtype=self.dtype, weights=self.weights
                )
                name = self.name or self._own_name()
                service = Service(bert, name, Settings(**own))
                service.programs.compile(_report)
            server.allow_connections()
            server.log_to_stderr(self.access_log)
            running = server.make_server(service, keys, self.grace)
            bound.listen(server.BACKLOG)  # who reads the next line may connect
            protected = "an API key is needed" if keys else "no API key is needed"
            printing.print_to_stderr(
                f"serving {name} ({service.kind}) at {server.address(bound)}; {protected}"
            )
            server.serve(running, bound)
        printing.print_to_stderr("stopped")

    def _own_name(self) -> str:
        path = Path(self.model)
        return path.resolve().name if path.exists() else self.model


def _report(program: str, seconds: float) -> None:
    printing.print_to_stderr(f"compiled {program} in {seconds:.1f} s")
