"""Builds a Job (batch/v1)."""

from posttrain_operator.cluster import Json
from posttrain_operator.observe.job import API_VERSION, KIND
from posttrain_operator.plan.metadata import Child


def indexed_job(child: Child, template: Json, *, completions: int) -> Json:
    """A Job whose pods share the work by their completion index. One attempt: the operator owns retries."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": child.queued_metadata(),
        "spec": {
            "completionMode": "Indexed",
            "completions": completions,
            "parallelism": completions,
            "backoffLimit": 0,
            "suspend": child.resource.run.queue is not None,
            "template": template,
        },
    }
