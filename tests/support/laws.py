"""What must hold whatever happens, checked at every write of the operator and between them."""

from posttrain_operator import labels
from posttrain_operator.api.quantities import to_timedelta
from posttrain_operator.api.resources import is_ours
from posttrain_operator.api.status import Attempt, Status
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.plan.attempts import FREE_OUTCOMES
from posttrain_operator.status import seen_status
from support.memory_cluster import ENDED
from support.memory_controllers import MADE_FOR
from support.viewed_cluster import ViewedCluster


class Laws:
    """Watches a cluster; a broken law is an ``AssertionError`` at the write that breaks it."""

    def __init__(self, cluster: ViewedCluster) -> None:
        self.cluster = cluster
        self.acting = ""
        """The uid of the object, as the operator sees it, that a pass is about."""
        self.published: set[str] = set()
        """The uids of objects whose pods have told of an artifact."""
        self.skewed = False
        """Whether the operator's clock has ever been wrong."""
        self.foreign: dict[Ref, Json] = {}
        """Objects of others that have the names of children."""
        cluster.on_create, cluster.on_delete, cluster.on_status = self.created, self.deleted, self.told

    # At writes.

    def created(self, child: Json) -> None:
        """Children belong to the open attempt that is on record."""
        owner = self._by_uid(_controller(child))
        assert _controller(child) == self.acting, "a child of somebody else's"
        if owner is None:
            return  # deleted since the pass began: the garbage collector comes for the child
        status = _status(owner)
        assert not status.finished, f"{Ref.of(child)} for {Ref.of(owner)}, which has {status.phase}"
        assert status.attempts, f"{Ref.of(child)} without an attempt on record"
        last = status.attempts[-1]
        assert last.end_time is None, f"{Ref.of(child)} although attempt {last.number} is over"
        number = int(child["metadata"]["labels"][labels.ATTEMPT])
        assert number == last.number, f"{Ref.of(child)} although attempt {last.number} is on record"

    def deleted(self, obj: Json) -> None:
        """What is deleted is a child of the very object that the pass is about."""
        assert _controller(obj) == self.acting, f"{Ref.of(obj)} belongs to {_controller(obj)}, not to {self.acting}"

    def told(self, obj: Json, status: Json) -> None:
        """A status follows from the one before it."""
        before, after = _status(obj), Status.model_validate(status)
        assert after.to_json() == status
        if before.finished:
            assert seen_status(after, generation=0) == seen_status(before, generation=0), "an end that does not stay"
        assert after.holds("Ready") == after.holds("Succeeded") == (after.phase == "Succeeded")
        assert not (after.holds("Succeeded") and after.holds("Failed"))
        assert not (after.holds("Reconciling") and after.finished)
        assert after.observed_generation is None or after.observed_generation <= obj["metadata"]["generation"]
        if after.phase == "Succeeded":
            assert obj["metadata"]["uid"] in self.published, "success that nobody told of"
            assert after.artifact is not None
        if before.attempts:
            assert after.inputs == before.inputs, "inputs that change after the first attempt"
        self._history(obj, before, after)
        self._in_time(obj, before, after)

    def _history(self, obj: Json, before: Status, after: Status) -> None:
        numbers = [attempt.number for attempt in after.attempts]
        assert numbers == sorted(set(numbers)), f"attempts {numbers}"
        assert all(attempt.end_time is not None for attempt in after.attempts[:-1]), "two open attempts"
        assert all((a.end_time is None) == (a.outcome is None) for a in after.attempts)
        assert not (after.finished and after.attempts and after.attempts[-1].end_time is None), "an end that is open"
        old = {attempt.number: attempt for attempt in before.attempts}
        assert set(old) <= set(numbers), f"attempts {sorted(set(old) - set(numbers))} are forgotten"
        for attempt in after.attempts:
            known = old.get(attempt.number)
            if known is None:
                assert attempt.number > max(old, default=0), f"attempt {attempt.number} after {sorted(old)}"
            elif known.end_time is not None:
                assert attempt == known, f"attempt {attempt.number} ended and changed"
            self._cost(obj, before, attempt, known)

    def _cost(self, obj: Json, before: Status, attempt: Attempt, known: Attempt | None) -> None:
        """Whether there may be another attempt, and whether an attempt may end so."""
        counted = sum(1 for old in before.attempts if old.outcome not in (None, "Succeeded", *FREE_OUTCOMES))
        if known is None:
            retries = obj["spec"].get("run", {}).get("retries", 3)
            assert counted <= retries, f"attempt {attempt.number} after {counted} failures, {retries} are allowed"
        newly = attempt.end_time is not None and (known is None or known.end_time is None)
        if newly and attempt.outcome == "Failed" and attempt.message and "left no pod" in attempt.message:
            own = [
                pod for pod in self._pods_of(obj) if pod["metadata"]["labels"][labels.ATTEMPT] == str(attempt.number)
            ]
            failed = [pod["metadata"]["name"] for pod in own if pod["status"]["phase"] == "Failed"]
            assert not failed, f"{failed} were there to say why"

    def _in_time(self, obj: Json, before: Status, after: Status) -> None:
        """A deadline is for jobs that took so long, by a clock that was always right."""
        ready, run = after.condition("Ready"), obj["spec"].get("run", {})
        late = {"DeadlineExceeded": run.get("deadline"), "PendingDeadlineExceeded": run.get("pendingDeadline")}
        if before.finished or self.skewed or ready is None or ready.reason not in late:
            return
        allowed = late[ready.reason]
        assert allowed is not None, f"{ready.reason} without a deadline"
        assert after.start_time is not None
        assert self.cluster.clock() - after.start_time >= to_timedelta(allowed), f"{ready.reason} too early"
        if ready.reason == "PendingDeadlineExceeded":
            assert not any(attempt.ran for attempt in after.attempts), "it ran in time"

    # Between writes.

    def check(self) -> None:
        """Called after every step."""
        for obj in list(self.cluster.objects.values()):
            if is_ours(obj):
                alive = {str(pod["metadata"]["labels"][labels.ATTEMPT]) for pod in self.alive(obj)}
                assert len(alive) <= 1, f"attempts {sorted(alive)} of {Ref.of(obj)} live at once"
        for ref, obj in self.foreign.items():
            assert self.cluster.objects.get(ref) == obj, f"{ref} is somebody else's"

    def alive(self, obj: Json) -> list[Json]:
        """The pods of an object that have not ended, those that are being deleted too."""
        return [pod for pod in self._pods_of(obj) if pod["status"]["phase"] not in ENDED]

    def succeeded(self, pod: Json) -> None:
        """A pod tells of an artifact."""
        self.published.add(made_for(pod))

    def _pods_of(self, obj: Json) -> list[Json]:
        uid = obj["metadata"]["uid"]
        return [pod for pod in self.cluster.objects.values() if pod["kind"] == "Pod" and made_for(pod) == uid]

    def _by_uid(self, uid: str) -> Json | None:
        return next((obj for obj in self.cluster.objects.values() if obj["metadata"]["uid"] == uid), None)


def made_for(pod: Json) -> str:
    """The uid of the object whose attempt a pod is."""
    return str(pod["metadata"]["annotations"][MADE_FOR])


def _controller(obj: Json) -> str:
    return next((str(o["uid"]) for o in obj["metadata"].get("ownerReferences", []) if o.get("controller")), "")


def _status(obj: Json) -> Status:
    return Status.model_validate(obj.get("status") or {})
