"""The cluster behind the API server: what each answer means to the loop, and what it leaves in the cache."""

import copy
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_operator import labels
from posttrain_operator.cache import Cache
from posttrain_operator.cluster import Event, Json, Ref
from posttrain_operator.errors import ApiUnavailable, Conflict, InvalidSpec, Waiting
from posttrain_operator.kube import KubeCluster, merge_patch
from posttrain_operator.labels import Reason
from posttrain_operator.rest import Page, RefusedError, Rest
from posttrain_operator.server_clock import ServerClock
from posttrain_operator.telemetry import Telemetry
from posttrain_operator.watched import CHILDREN, Api
from support.scene import finish

POD = "/api/v1/namespaces/team/pods/x"
RESOURCE = "/apis/posttrain.dev/v1alpha1/namespaces/team/filterjobs/x"
JOBS = "/apis/batch/v1/namespaces/team/jobs"


class Answers(Rest):
    """An API server that answers what a test says, and writes down what it is asked."""

    def __init__(self) -> None:
        self.clock = ServerClock()
        self.answers: dict[tuple[str, str], Json | Exception | Callable[[Json], Json]] = {}
        self.asked: list[tuple[str, str, Any]] = []

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Json:
        path, *options = path.split("?")
        if method in ("POST", "PATCH") and not path.endswith("events"):
            assert f"fieldManager={labels.MANAGER}" in options[0]
        self.asked.append((method, path, copy.deepcopy(body)))
        answer = self.answers.get((method, path), RefusedError(404, "NotFound", "not found"))
        if isinstance(answer, Exception):
            raise answer
        return copy.deepcopy(answer(body) if callable(answer) else answer)

    async def pages(
        self, api: Api, *, namespace: str = "", selector: str | None = None, **_: Any
    ) -> AsyncIterator[Page]:
        self.asked.append(("LIST", api.path(namespace), selector))
        yield Page([], 1)


class Scene:
    """A cluster, and what it told the operator besides its answers."""

    def __init__(self) -> None:
        self.rest, self.cache = Answers(), Cache()
        self.found: list[str] = []
        self.wrote: list[tuple[Json, Json]] = []
        self.cluster = KubeCluster(
            self.rest,
            self.cache,
            Telemetry(timedelta(seconds=10)),
            found=lambda obj: self.found.append(obj["metadata"]["uid"]),
            wrote=lambda before, after: self.wrote.append((before, after)),
        )


def obj(kind: str = "Pod", version: int = 5, *, uid: str = "1", **parts: Any) -> Json:
    api_version = {"FilterJob": labels.API_VERSION, "Job": "batch/v1"}.get(kind, "v1")
    metadata = {"name": "x", "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def refusal(code: int) -> RefusedError:
    return RefusedError(code, "Because", f"it is {code}")


REF = Ref.of(obj())


# Reading.


def test_what_was_seen_last_costs_no_request() -> None:
    scene = Scene()
    scene.cache.put(obj())
    assert finish(scene.cluster.get(REF)) == obj()
    assert finish(scene.cluster.list_objects("v1", "Pod", "team", {})) == [obj()]
    assert scene.rest.asked == []


def test_what_is_read_is_kept_and_its_news_told() -> None:
    scene = Scene()
    scene.cache.put(obj(version=4))
    newer = obj(version=6, status={"phase": "Running"})
    scene.rest.answers["GET", POD] = newer
    assert finish(scene.cluster.read(REF)) == newer
    assert scene.cache.get(REF) == newer
    finish(scene.cluster.read(REF))
    assert scene.found == ["1"], "once"


def test_what_is_not_there_is_forgotten_and_told() -> None:
    scene = Scene()
    scene.cache.put(obj())
    assert finish(scene.cluster.read(REF)) is None
    assert scene.cache.get(REF) is None
    assert scene.found == ["1"]


@pytest.mark.parametrize("code", [400, 403, 409])
def test_a_read_that_is_refused_says_nothing_of_the_object(code: int) -> None:
    scene = Scene()
    scene.cache.put(obj())
    scene.rest.answers["GET", POD] = refusal(code)
    with pytest.raises(ApiUnavailable, match=f"{code} Because: it is {code}"):
        finish(scene.cluster.read(REF))
    assert scene.cache.get(REF) is not None


def test_before_absence_is_believed_every_kind_of_child_is_asked_for() -> None:
    scene = Scene()
    finish(scene.cluster.refresh("team", {"a": "b", "c": "d"}))
    assert scene.rest.asked == [("LIST", api.path("team"), "a=b,c=d") for api in CHILDREN]


# Creating.


def test_a_child_is_in_the_cache_before_the_pass_goes_on() -> None:
    scene = Scene()
    sent = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x", "namespace": "team"}, "spec": {"a": 1}}
    scene.rest.answers["POST", JOBS] = lambda body: {
        "metadata": {**body["metadata"], "uid": "1", "resourceVersion": "5"}
    }
    stored = finish(scene.cluster.create(sent))
    assert stored == obj("Job", spec={"a": 1})
    assert scene.cache.get(Ref.of(stored)) is not None
    assert scene.rest.asked == [("POST", JOBS, sent)]
    assert scene.found == [], "the pass that made it knows"


def created(answer: Exception) -> Exception:
    scene = Scene()
    scene.rest.answers["POST", JOBS] = answer
    with pytest.raises(Exception) as error:  # noqa: PT011 - which one is what is asked
        finish(scene.cluster.create(obj("Job")))
    assert scene.cache.get(Ref.of(obj("Job"))) is None
    return error.value


def test_a_name_that_is_taken_is_a_conflict() -> None:
    assert isinstance(created(refusal(409)), Conflict)


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_child_that_is_wrong_is_for_the_user_to_mend(code: int) -> None:
    error = created(refusal(code))
    assert isinstance(error, InvalidSpec)
    assert str(error) == f"spec.run: it is {code}"


def test_a_kind_that_is_not_installed_is_waited_for() -> None:
    error = created(refusal(404))
    assert isinstance(error, Waiting)
    assert (error.reason, error.stalled) == (Reason.KIND_MISSING, True)
    assert "the cluster has no batch/v1 Job; install" in str(error)


@pytest.mark.parametrize("code", [403, 405, 410])
def test_a_child_that_the_cluster_will_not_have_is_waited_for_and_told(code: int) -> None:
    error = created(refusal(code))
    assert isinstance(error, Waiting)
    assert (error.reason, error.stalled) == (Reason.REFUSED, True)
    assert str(error) == f"the cluster refuses Job/x: it is {code}"


def test_a_server_that_does_not_answer_is_asked_again_later() -> None:
    assert isinstance(created(ApiUnavailable("503")), ApiUnavailable)


# Deleting.


@pytest.mark.parametrize("answer", [{"kind": "Status", "metadata": {}, "status": "Success"}, obj(version=5)])
def test_what_is_deleted_is_forgotten_and_told(answer: Json) -> None:
    scene = Scene()
    scene.cache.put(obj())
    scene.rest.answers["DELETE", POD] = answer
    finish(scene.cluster.delete(REF, uid="1"))
    ((_, _, body),) = scene.rest.asked
    assert body["preconditions"] == {"uid": "1"}
    assert scene.cache.get(REF) is None
    assert scene.found == ["1"]


def test_what_ends_in_its_own_time_is_kept_until_it_has() -> None:
    scene = Scene()
    scene.cache.put(obj())
    ending = obj(version=6)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    scene.rest.answers["DELETE", POD] = ending
    finish(scene.cluster.delete(REF, uid="1"))
    assert scene.cache.get(REF) == ending


def test_absence_is_success() -> None:
    scene = Scene()
    scene.cache.put(obj())
    finish(scene.cluster.delete(REF, uid="1"))
    assert scene.cache.get(REF) is None


def test_a_namesake_that_has_taken_the_place_stays_and_is_seen() -> None:
    scene = Scene()
    scene.cache.put(obj())
    scene.rest.answers["DELETE", POD] = refusal(409)
    scene.rest.answers["GET", POD] = obj(version=9, uid="2")
    finish(scene.cluster.delete(REF, uid="1"))
    assert scene.cache.get(REF) == obj(version=9, uid="2")


def test_a_namesake_that_is_known_already_is_not_forgotten() -> None:
    scene = Scene()
    scene.cache.put(obj(version=9, uid="2"))
    scene.rest.answers["DELETE", POD] = {"kind": "Status", "metadata": {}}
    finish(scene.cluster.delete(REF, uid="1"))
    assert scene.cache.get(REF) == obj(version=9, uid="2")


def test_a_conflict_over_the_object_itself_is_one() -> None:
    scene = Scene()
    scene.cache.put(obj())
    scene.rest.answers["DELETE", POD] = refusal(409)
    scene.rest.answers["GET", POD] = obj()
    with pytest.raises(Conflict):
        finish(scene.cluster.delete(REF, uid="1"))


def test_a_deletion_that_is_refused_is_tried_again() -> None:
    scene = Scene()
    scene.cache.put(obj())
    scene.rest.answers["DELETE", POD] = refusal(403)
    with pytest.raises(ApiUnavailable, match="403"):
        finish(scene.cluster.delete(REF, uid="1"))
    assert scene.cache.get(REF) is not None


# The status.


def patched(body: Json) -> Json:
    return obj("FilterJob", version=6)


def test_a_status_is_written_as_a_difference_that_tests_the_version() -> None:
    scene = Scene()
    before = obj("FilterJob", status={"phase": "Pending", "old": 1, "same": {"a": [1]}})
    scene.cache.put(before)
    scene.rest.answers["PATCH", f"{RESOURCE}/status"] = patched
    after = {"phase": "Running", "same": {"a": [1]}}
    stored = finish(scene.cluster.patch_status(before, after))
    ((_, _, body),) = scene.rest.asked
    assert body == {"metadata": {"resourceVersion": "5"}, "status": {"phase": "Running", "old": None}}
    assert stored == scene.cache.get(Ref.of(before)) == obj("FilterJob", version=6, status=after)
    assert scene.wrote == [(before, stored)]
    assert scene.found == [], "the pass that wrote it knows"


def test_a_write_is_told_though_its_event_came_before_its_answer() -> None:
    scene = Scene()
    before = obj("FilterJob", status={"phase": "Pending"})
    after = {"phase": "Running"}
    scene.cache.put(obj("FilterJob", version=6, status=after))
    scene.rest.answers["PATCH", f"{RESOURCE}/status"] = patched
    stored = finish(scene.cluster.patch_status(before, after))
    assert scene.wrote == [(before, stored)]


def test_a_write_that_changes_nothing_is_told_to_nobody() -> None:
    scene = Scene()
    before = obj("FilterJob", status={"phase": "Pending"})
    scene.cache.put(before)
    scene.rest.answers["PATCH", f"{RESOURCE}/status"] = lambda _: before
    finish(scene.cluster.patch_status(before, {"phase": "Pending"}))
    assert scene.wrote == []


def test_of_two_writers_the_second_reads_what_the_first_wrote() -> None:
    scene = Scene()
    before = obj("FilterJob")
    scene.cache.put(before)
    scene.rest.answers["PATCH", f"{RESOURCE}/status"] = refusal(409)
    newer = obj("FilterJob", version=9, status={"phase": "Pending"})
    scene.rest.answers["GET", RESOURCE] = newer
    with pytest.raises(Conflict):
        finish(scene.cluster.patch_status(before, {}))
    assert scene.cache.get(Ref.of(before)) == newer
    assert scene.found == ["1"]


def test_an_object_that_is_gone_is_a_conflict_and_forgotten() -> None:
    scene = Scene()
    before = obj("FilterJob")
    scene.cache.put(before)
    with pytest.raises(Conflict):
        finish(scene.cluster.patch_status(before, {}))
    assert scene.cache.get(Ref.of(before)) is None


@pytest.mark.parametrize("code", [403, 413, 422])
def test_a_status_that_is_refused_is_tried_again(code: int) -> None:
    scene = Scene()
    scene.rest.answers["PATCH", f"{RESOURCE}/status"] = refusal(code)
    with pytest.raises(ApiUnavailable, match=str(code)):
        finish(scene.cluster.patch_status(obj("FilterJob"), {}))


# Events.

EVENT = Event("0123", "Warning", "Broken", "it broke" * 1_000)
EVENTS = "/api/v1/namespaces/team/events"


def test_people_are_told_what_happened_to_which_object() -> None:
    scene = Scene()
    scene.rest.answers["POST", EVENTS] = obj("Event")
    finish(scene.cluster.tell(obj("FilterJob"), EVENT))
    ((_, _, body),) = scene.rest.asked
    assert body["metadata"] == {"name": "x.0123", "namespace": "team"}
    assert body["involvedObject"] == {
        "apiVersion": labels.API_VERSION,
        "kind": "FilterJob",
        "namespace": "team",
        "name": "x",
        "uid": "1",
    }
    assert (body["type"], body["reason"], body["source"]) == ("Warning", "Broken", {"component": "posttrain-operator"})
    assert len(body["message"]) == 1024, "the API server takes no more"


@pytest.mark.parametrize(
    ("answer", "logged"),
    [(refusal(409), ""), (refusal(403), "it is 403"), (refusal(404), "it is 404"), (ApiUnavailable("503"), "503")],
)
def test_nothing_depends_on_what_people_are_told(
    answer: Exception, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene()
    scene.rest.answers["POST", EVENTS] = answer
    with caplog.at_level(logging.WARNING):
        finish(scene.cluster.tell(obj("FilterJob"), EVENT))
    assert [record.message for record in caplog.records] == (
        [f"event for FilterJob/x not told: {logged}"] if logged else []
    )


# Addresses.


def test_a_server_is_found_by_the_name_of_its_pod() -> None:
    assert Scene().cluster.server_address(namespace="team", service="x", pod="x-0") == "x-0.x.team.svc"


# JSON merge patches, RFC 7386.

SCALARS = st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, width=16) | st.text("ab", max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def apply(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7386, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = apply(result.get(name), value)
    return result


@settings(deadline=None, max_examples=100)
@given(OBJECTS, OBJECTS)
def test_a_patch_leads_from_one_object_to_the_other(before: Json, after: Json) -> None:
    assert apply(before, merge_patch(before, after)) == after


@settings(deadline=None)
@given(OBJECTS)
def test_between_equals_there_is_no_patch(obj: Json) -> None:
    assert merge_patch(obj, copy.deepcopy(obj)) == {}


def test_lists_are_replaced_as_a_whole() -> None:
    assert merge_patch({"a": [{"b": 1}, {"c": 2}]}, {"a": [{"b": 1}]}) == {"a": [{"b": 1}]}


def test_what_stays_is_not_sent() -> None:
    before = {"a": {"b": 1, "c": {"d": 2}}, "e": 5}
    assert merge_patch(before, {"a": {"b": 1, "c": {"d": 3}}, "e": 5}) == {"a": {"c": {"d": 3}}}
    assert merge_patch(before, {"e": 5}) == {"a": None}


def test_a_write_whose_answer_was_lost_is_a_write() -> None:
    scene = Scene()
    before = obj("FilterJob")
    status = {"phase": "Succeeded"}
    scene.cache.put(before)
    scene.rest.answers["PATCH", f"{RESOURCE}/status"] = refusal(409)
    scene.rest.answers["GET", RESOURCE] = obj("FilterJob", version=9, status=status)
    stored = finish(scene.cluster.patch_status(before, status))
    assert stored["metadata"]["resourceVersion"] == "9"
    assert [after["status"] for _, after in scene.wrote] == [status], "people are told of it"


def test_a_quota_that_was_used_up_meanwhile_is_no_matter_for_a_person() -> None:
    scene = Scene()
    scene.rest.answers["POST", JOBS] = RefusedError(403, "Forbidden", 'jobs "x" is forbidden: exceeded quota: team')
    with pytest.raises(Waiting) as waiting:
        finish(scene.cluster.create(obj("Job")))
    assert not waiting.value.stalled


def test_what_somebody_changed_is_applied_by_one_field_manager() -> None:
    scene = Scene()
    service = obj("Service", spec={"ports": []})
    path = "/api/v1/namespaces/team/services/x"
    scene.rest.answers["PATCH", path] = obj("Service", version=8)
    finish(scene.cluster.repair(service))
    assert scene.rest.asked[-1] == ("PATCH", path, service)
