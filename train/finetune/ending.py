"""What a run leaves behind when it ends."""

import dataclasses
from typing import Any

from .run import Run, finite
from .session import Session
from .start import Start
from .step import State


@dataclasses.dataclass
class Ending:
    """What a run leaves behind: its result, predictions, and the exported model."""

    run: Run
    session: Session
    rows: list[dict[str, Any]]
    """Of `metrics.jsonl`."""

    def write(
        self, state: State, fixed: Any, start: Start, examples: int, seconds: float
    ) -> dict[str, Any]:
        """Measures the exported model once more, and writes everything. Returns the result."""
        config, data, predict = self.run.config, self.session.data, self.session.predict
        task, kept = data.task, bool(state.best.params) and int(state.best.step) >= 0
        kept &= config.keep_best
        trained = state.best.params if kept else state.params
        result: dict[str, Any] = {"task": task.kind, "metric": task.best_metric}
        result |= self._history(int(state.best.step), int(state.step))
        if data.validation:
            said = predict(trained, fixed, data.validation, keep=True)
            task = task.tuned(data.validation, said.outputs)
            if task != data.task:
                metrics = task.metrics(data.validation, said.outputs)
                result["tuned"] = {"metrics": finite(metrics)}
            self.run.write_predictions(
                "validation", task.predictions(data.validation, said.outputs)
            )
        if data.test:
            said = predict(trained, fixed, data.test)
            metrics = {"loss": said.loss, **task.metrics(data.test, said.outputs)}
            result["test"] = {"metrics": finite(metrics)}
            self.run.write_predictions("test", task.predictions(data.test, said.outputs))
        result["exported"] = "best" if kept else "last"
        result["new_parameters"] = list(start.new)
        result |= {"examples": len(data.train), "seconds": round(seconds, 3)}
        result["examples_per_second"] = round(examples / max(seconds, 1e-9), 3)
        self.run.export_adapters(self.session, trained)
        params = self.session.whole(trained, fixed)
        self.run.export(self.session, start, params, task, result)
        return result

    def _history(self, best: int, last: int) -> dict[str, Any]:
        """What the evaluations of the best and of the last update have found."""
        found = {row["step"]: row for row in self.rows if "eval_loss" in row}
        return {
            name: {
                "step": step,
                "metrics": {
                    key.removeprefix("eval_"): value
                    for key, value in found[step].items()
                    if key.startswith("eval_")
                },
            }
            for name, step in (("best", best), ("last", last))
            if step in found
        }
