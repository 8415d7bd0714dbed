"""What was seen of the cluster: the same in whatever order, and from whatever source, it was told."""

import copy
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_operator import labels
from posttrain_operator.cache import Cache, family_of, version_of
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.lists import refresh
from posttrain_operator.rest import Page, Rest
from posttrain_operator.watched import APIS, Api
from support.scene import finish

JOB = APIS["batch/v1", "Job"]
OWNERS = (("FilterJob", "a"), ("FilterJob", "b"), ("UploadJob", "a"))
NAMES = ("x", "y")
NAMESPACES = ("team", "other")


def job(name: str, version: int, *, uid: str = "", owner: tuple[str, str] | None = OWNERS[0], **spec: Any) -> Json:
    own = {labels.KIND: owner[0], labels.NAME: owner[1]} if owner is not None else {}
    namespace, _, short = name.rpartition("/")
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {
            "name": short,
            "namespace": namespace or "team",
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": {"app.kubernetes.io/managed-by": labels.MANAGER, **own},
        },
        "spec": spec,
    }


X = Ref.of(job("x", 1))


# One object.


def test_the_newest_version_is_kept_whichever_comes_first() -> None:
    cache = Cache()
    assert cache.put(job("x", 9, completions=9))
    assert not cache.put(job("x", 8, completions=8))
    assert not cache.put(job("x", 9, completions=9)), "told twice"
    assert cache.get(X) == job("x", 9, completions=9)


def test_versions_are_numbers() -> None:
    cache = Cache()
    cache.put(job("x", 9))
    assert cache.put(job("x", 10, completions=2))


def test_what_changes_nothing_that_is_read_is_no_news_but_known() -> None:
    cache = Cache()
    cache.put(job("x", 9, completions=2))
    noted = job("x", 10, completions=2)
    noted["metadata"] |= {"annotations": {"note": "1"}, "managedFields": [{"manager": "somebody"}]}
    assert not cache.put(noted)
    found = cache.get(X)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "10", "the next write names it"


@pytest.mark.parametrize("change", [{"labels": {}}, {"generation": 2}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}])
def test_what_is_read_of_the_metadata_is_news(change: Json) -> None:
    cache = Cache()
    cache.put(job("x", 9))
    changed = job("x", 10)
    changed["metadata"] |= change
    assert cache.put(changed)


def test_what_was_deleted_does_not_come_back_with_a_late_event() -> None:
    cache = Cache()
    cache.put(job("x", 5))
    assert cache.remove(X, 7)
    assert not cache.put(job("x", 6))
    assert cache.get(X) is None
    assert cache.select(JOB.api_version, JOB.kind, "team", {}) == []
    assert not cache.remove(X, 7), "told twice"


def test_a_deletion_that_is_told_first_holds_too() -> None:
    cache = Cache()
    assert not cache.remove(X, 7)
    assert not cache.put(job("x", 6))
    assert cache.get(X) is None


def test_a_namesake_with_another_uid_takes_the_place() -> None:
    cache = Cache()
    cache.put(job("x", 5, uid="old"))
    cache.remove(X, 7)
    assert cache.put(job("x", 8, uid="new"))
    assert not cache.remove(X, 7), "this tells of the old one"
    found = cache.get(X)
    assert found is not None
    assert found["metadata"]["uid"] == "new"


def test_a_namesake_may_be_told_before_the_end_of_its_predecessor() -> None:
    cache = Cache()
    cache.put(job("x", 5, uid="old"))
    cache.put(job("x", 8, uid="new"))
    assert not cache.remove(X, 7)
    assert cache.get(X) == job("x", 8, uid="new")


def test_what_is_forgotten_may_be_told_again() -> None:
    cache = Cache()
    cache.put(job("x", 5))
    cache.forget(X)
    cache.forget(X)
    assert cache.get(X) is None
    assert cache.put(job("x", 5)), "the one who said that it is gone was wrong"


def test_deletions_are_not_remembered_for_ever() -> None:
    cache = Cache()
    for number in range(30_000):
        cache.remove(Ref.of(job(f"n{number}", 1)), number + 1)
    assert len(cache._gone) == 20_000
    assert not cache.put(job("n29999", 1)), "a young one is"


@pytest.mark.parametrize("text", ["", None, "abc", "1.5", "-3"])
def test_a_version_that_is_no_number_is_the_oldest(text: str | None) -> None:
    obj = job("x", 1)
    obj["metadata"]["resourceVersion"] = text
    assert version_of(obj) == 0


# What we created is as we sent it until the cluster tells what it made of it.


def test_what_the_cluster_made_of_a_creation_is_news_once() -> None:
    cache = Cache()
    assert cache.put(job("x", 5, suspend=False), assumed=True)
    assert cache.put(job("x", 5, suspend=True)), "a webhook has suspended it"
    assert not cache.put(job("x", 5, suspend=True))
    assert cache.get(X) == job("x", 5, suspend=True)


def test_a_creation_that_became_what_was_sent_is_no_news() -> None:
    cache = Cache()
    cache.put(job("x", 5, suspend=True), assumed=True)
    seen = {**job("x", 5, suspend=True, selector={"a": "b"}, template={}), "status": {}}
    assert not cache.put(seen)


def test_the_answer_to_a_creation_may_come_after_its_event() -> None:
    cache = Cache()
    cache.put(job("x", 5, suspend=True))
    assert not cache.put(job("x", 5, suspend=False), assumed=True)
    assert cache.get(X) == job("x", 5, suspend=True)


# Whatever the order.


@dataclass(frozen=True)
class Told:
    """One thing that is told of the cluster."""

    what: str
    tell: Callable[[Cache], object]

    def __repr__(self) -> str:
        return self.what


class History:
    """A cluster with a life: what it holds at each version, and what is told of it."""

    def __init__(self) -> None:
        self.now: dict[Ref, Json] = {}
        self.versions: list[dict[Ref, Json]] = [{}]
        self.events: list[Told] = []
        self.answers: list[Told] = []

    def change(self, name: str, owner: tuple[str, str] | None, *, delete: bool) -> None:
        version = len(self.versions)
        ref = Ref.of(job(name, version))
        before = self.now.get(ref)
        if before is not None and delete:
            del self.now[ref]
            self.events.append(Told(f"{name} deleted at {version}", lambda cache: cache.remove(ref, version)))
            self.answers.append(Told(f"{name} deleted by us", lambda cache: forget(cache, before)))
        else:
            uid = before["metadata"]["uid"] if before is not None else f"uid-{version}"
            obj = self.now[ref] = job(name, version, uid=uid, owner=owner, completions=version)
            self.events.append(Told(f"{name} is at {version}", lambda cache: cache.put(copy.deepcopy(obj))))
            sent = job(name, version, uid=uid, owner=owner)  # what a webhook adds is not in it
            assumed = before is None
            answer = sent if assumed else obj
            self.answers.append(Told(f"{name} answered {version}", lambda cache: cache.put(answer, assumed=assumed)))
        self.versions.append(dict(self.now))

    def lists(self) -> Iterator[Told]:
        """A list at every version."""
        for version, objects in enumerate(self.versions):
            if version:
                yield Told(f"list of {version}", listing(version, list(objects.values())))


def forget(cache: Cache, gone: Json) -> None:
    """As ``KubeCluster.delete`` does with an answer."""
    seen = cache.get(Ref.of(gone))
    if seen is not None and seen["metadata"]["uid"] == gone["metadata"]["uid"]:
        cache.forget(Ref.of(gone))


def listing(version: int, objects: list[Json]) -> Callable[[Cache], object]:
    class Recorded(Rest):
        def __post_init__(self) -> None:
            """Connects to nothing."""

        async def pages(self, api: Api, **_: Any) -> AsyncIterator[Page]:
            yield Page(copy.deepcopy(objects), version)

    return lambda cache: finish(refresh(Recorded(None), cache, JOB))


CHANGES = st.lists(
    st.tuples(
        st.sampled_from([f"{namespace}/{name}" for namespace in NAMESPACES for name in NAMES]),
        st.sampled_from((*OWNERS, None)),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def history(changes: list[tuple[str, tuple[str, str] | None, bool]]) -> History:
    past = History()
    for name, owner, delete in changes:
        past.change(name, owner, delete=delete)
    return past


@settings(deadline=None)
@given(CHANGES, st.data())
def test_any_order_of_events_lists_and_answers_ends_in_the_same_state(changes: Any, data: st.DataObject) -> None:
    past = history(changes)
    others = data.draw(st.lists(st.sampled_from([*past.answers, *past.lists(), *past.events]), max_size=10))
    cache = Cache()
    for told in data.draw(st.permutations([*past.events, *others])):
        told.tell(cache)
        check(cache)
    assert_holds(cache, past)


@settings(deadline=None)
@given(CHANGES, st.data())
def test_a_list_mends_whatever_was_missed(changes: Any, data: st.DataObject) -> None:
    past = history(changes)
    everything = [*past.answers, *past.lists(), *past.events]
    cache = Cache()
    for told in data.draw(st.lists(st.sampled_from(everything), max_size=15)):
        told.tell(cache)
    listing(len(past.versions) - 1, list(past.now.values()))(cache)
    check(cache)
    assert_holds(cache, past)


def assert_holds(cache: Cache, past: History) -> None:
    assert {ref: cache.get(ref) for ref in cache.refs(JOB.api_version, JOB.kind)} == past.now
    assert len(cache) == len(past.now)


def check(cache: Cache) -> None:
    """The indices say what a look at every object says."""
    objects = {ref: obj for ref in cache.refs(JOB.api_version, JOB.kind) if (obj := cache.get(ref)) is not None}
    assert objects.keys() == cache._objects.keys()
    for namespace in ("", *NAMESPACES):
        for kind, name in OWNERS:
            wanted = {labels.KIND: kind, labels.NAME: name}
            for selector in ({}, wanted, {labels.KIND: kind}, {**wanted, labels.ATTEMPT: "1"}):
                found = cache.select(JOB.api_version, JOB.kind, namespace, selector)
                scanned = [
                    obj
                    for ref, obj in objects.items()
                    if namespace in ("", ref.namespace) and selector.items() <= obj["metadata"]["labels"].items()
                ]
                assert sorted(map(version_of, found)) == sorted(map(version_of, scanned))
    assert set(cache._families) == {family_of(obj) for obj in objects.values()} - {None}, "no empty family is kept"


def test_another_kind_with_the_same_name_is_another_object() -> None:
    cache = Cache()
    cache.put(job("x", 5))
    cache.put({**job("x", 6), "kind": "StatefulSet", "apiVersion": "apps/v1"})
    wanted = {labels.KIND: OWNERS[0][0], labels.NAME: OWNERS[0][1]}
    assert [obj["kind"] for obj in cache.select("batch/v1", "Job", "team", wanted)] == ["Job"]
    assert [obj["kind"] for obj in cache.select("apps/v1", "StatefulSet", "team", wanted)] == ["StatefulSet"]
    assert cache.select("apps/v1", "Job", "team", wanted) == []


def test_it_can_be_changed_while_it_is_read() -> None:
    cache = Cache()
    for name in "abc":
        cache.put(job(name, 1))
    for ref in cache.refs(JOB.api_version, JOB.kind):
        cache.remove(ref, 2)
    assert len(cache) == 0
