"""What keeps pods from starting, or ends them: told in words by the object itself."""

from typing import Final

import pytest
from support.on_cluster import OnCluster
from support.tiny_jobs import filtering, tuning

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

IMAGE: Final = "posttrain/missing:dev"


def test_a_pod_that_needs_more_memory_than_it_may_have_fails_with_advice(team: OnCluster) -> None:
    job = team.submit(tuning(steps=10, resources={"memory": "128Mi"}))
    job.fail()
    (attempt,) = job.attempts
    assert (attempt["outcome"], attempt["reason"]) == ("Failed", "OutOfMemory"), "it would only happen again"
    assert "was killed at its memory limit; raise run.resources.memory or lower the batch size" in attempt["message"]
    assert job.condition("Ready")["reason"] == "OutOfMemory"


def test_an_image_that_no_node_can_get_is_named_until_the_wait_is_over(team: OnCluster) -> None:
    job = team.submit(filtering(image=IMAGE, pendingDeadline="40s"))
    message = job.reach("ImagePullFailed", seconds=120)
    assert IMAGE in message
    assert "check run.image and run.imagePullSecrets" in message
    job.fail(seconds=120)
    ready = job.condition("Ready")
    assert ready["reason"] == "PendingDeadlineExceeded"
    assert "ImagePullFailed" in ready["message"]
    assert IMAGE in ready["message"]


def test_a_pod_that_fits_on_no_node_waits_and_tells_what_the_scheduler_says(team: OnCluster) -> None:
    job = team.submit(filtering(resources={"cpu": "500"}))
    message = job.reach("Unschedulable", seconds=120)
    assert "cannot be scheduled" in message
    assert "Insufficient cpu" in message
    assert job.status["phase"] == "Starting"
