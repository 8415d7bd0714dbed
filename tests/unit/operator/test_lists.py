"""Lists make the cache agree with the cluster: all of it at once, or what events missed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from kubernetes.aio import client as kubernetes
from posttrain_operator import labels, rest
from posttrain_operator.cache import Cache, version_of
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.errors import ApiUnavailable
from posttrain_operator.lists import refresh, sweep
from posttrain_operator.rest import Rest
from posttrain_operator.watched import APIS, OURS, RESOURCES
from support.paged_api import PagedApi
from support.scripted_server import serving

JOB, PYTORCHJOB = APIS["batch/v1", "Job"], APIS["kubeflow.org/v1", "PyTorchJob"]
WANTED = {labels.KIND: "FilterJob", labels.NAME: "a"}
PAGE = 2


def job(name: str, owner: str = "a", *, namespace: str = "team", kind: str = "Job", **spec: Any) -> Json:
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "kubeflow.org/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-of-{name}",
            "labels": {"app.kubernetes.io/managed-by": labels.MANAGER, labels.KIND: "FilterJob", labels.NAME: owner},
        },
        "spec": spec,
    }


@dataclass
class Scene:
    """A cluster, what is cached of it, and what was told to have changed."""

    cluster: PagedApi = field(default_factory=PagedApi)
    cache: Cache = field(default_factory=Cache)
    told: list[str] = field(default_factory=list)

    def changed(self, obj: Json) -> None:
        self.told.append(obj["metadata"]["name"])

    @property
    def names(self) -> list[str]:
        found = self.cache.select("batch/v1", "Job", "", {})
        found += self.cache.select("kubeflow.org/v1", "PyTorchJob", "", {})
        return sorted(obj["metadata"]["name"] for obj in found)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Rest]:
        async with serving(self.cluster) as url:
            client = Rest(kubernetes.Configuration(host=url))
            try:
                yield client
            finally:
                await client.close()

    def refresh(self, api: Any = JOB, **options: Any) -> None:
        self._run(lambda client: refresh(client, self.cache, api, changed=self.changed, **options))

    def sweep(self, api: Any = JOB, **options: Any) -> None:
        self._run(lambda client: sweep(client, self.cache, api, changed=self.changed, **options))

    def _run(self, work: Callable[[Rest], Coroutine[Any, Any, Any]]) -> None:
        async def run() -> None:
            async with self.client() as client:
                await work(client)

        self.told.clear()
        self.cluster.requests.clear()
        asyncio.run(run())


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A cluster of five jobs, of two owners, that has been seen; pages are short."""
    monkeypatch.setattr(rest, "PAGE", PAGE)
    scene = Scene()
    for name, owner in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("b2", "b")):
        scene.cluster.put(job(name, owner, completions=1))
    scene.refresh()
    assert scene.names == ["a1", "a2", "a3", "b1", "b2"]
    return scene


# A whole list.


def test_everything_is_taken_in_page_by_page_and_told_once(scene: Scene) -> None:
    fresh = Scene(scene.cluster)
    fresh.refresh()
    assert sorted(fresh.told) == ["a1", "a2", "a3", "b1", "b2"]
    assert fresh.cluster.requests == [f"/apis/batch/v1/jobs {OURS}"] * 3
    fresh.refresh()
    assert fresh.told == []


def test_changes_and_ends_are_told(scene: Scene) -> None:
    scene.cluster.put(job("a2", completions=2))
    scene.cluster.delete(job("b1"))
    scene.cluster.put(job("new"))
    scene.refresh()
    assert sorted(scene.told) == ["a2", "b1", "new"]
    assert scene.names == ["a1", "a2", "a3", "b2", "new"]
    found = scene.cache.get(Ref.of(job("a2")))
    assert found is not None
    assert found["spec"] == {"completions": 2}


def test_what_is_younger_than_the_list_stays(scene: Scene) -> None:
    def meanwhile(number: int) -> None:
        if number == 1:
            scene.cache.put(scene.cluster.put(job("young")))  # its event overtakes the list

    scene.cluster.before_page = meanwhile
    scene.refresh()
    assert "young" in scene.names


def test_what_ended_during_the_list_stays_ended(scene: Scene) -> None:
    def meanwhile(number: int) -> None:
        if number == 1:
            scene.cluster.delete(job("b2"))  # which the last page still has
            scene.cache.remove(Ref.of(job("b2")), scene.cluster.version)

    scene.cluster.before_page = meanwhile
    scene.refresh()
    assert scene.names == ["a1", "a2", "a3", "b1"]


def test_only_the_family_that_was_asked_for_is_judged(scene: Scene) -> None:
    scene.cluster.delete(job("a1"))
    scene.cluster.delete(job("b1"))
    scene.refresh(namespace="team", wanted=WANTED)
    assert scene.told == ["a1"]
    assert scene.names == ["a2", "a3", "b1", "b2"]
    selector = ",".join(f"{key}={value}" for key, value in WANTED.items())
    assert set(scene.cluster.requests) == {f"/apis/batch/v1/namespaces/team/jobs {selector}"}


def test_only_the_namespace_that_was_asked_for_is_judged(scene: Scene) -> None:
    other = scene.cluster.put(job("far", namespace="other"))
    scene.cache.put(other)
    scene.cluster.delete(other)
    scene.refresh(namespace="team")
    assert "far" in scene.names
    scene.refresh(namespace="other")
    assert "far" not in scene.names


def test_a_list_that_expires_in_the_middle_leaves_no_ghost(scene: Scene) -> None:
    def meanwhile(number: int) -> None:
        if number == 1:
            scene.cluster.before_page = lambda _: None
            scene.cluster.delete(job("a1"))  # its page was read already
            scene.cluster.put(job("new"))
            scene.cluster.expire()

    scene.cluster.before_page = meanwhile
    scene.refresh()
    assert scene.names == ["a2", "a3", "b1", "b2", "new"]
    assert sorted(scene.told) == ["a1", "new"]


@pytest.mark.parametrize("how", ["refresh", "sweep"])
def test_a_list_that_never_comes_to_its_end_is_another_try(scene: Scene, how: str) -> None:
    scene.cluster.before_page = lambda number: scene.cluster.expire() if number else None
    with pytest.raises(ApiUnavailable, match="410"):
        getattr(scene, how)()
    assert scene.names == ["a1", "a2", "a3", "b1", "b2"]


def test_a_namesake_takes_the_place_of_what_was_deleted(scene: Scene) -> None:
    scene.cluster.delete(job("a1"))
    again = job("a1")
    again["metadata"]["uid"] = "another"
    scene.cluster.put(again)
    scene.refresh()
    found = scene.cache.get(Ref.of(again))
    assert found is not None
    assert found["metadata"]["uid"] == "another"


# A kind that is not there.


@pytest.mark.parametrize("how", ["refresh", "sweep"])
def test_a_cluster_may_do_without_an_optional_kind(scene: Scene, how: str) -> None:
    scene.cluster.refused["PyTorchJob"] = 404
    getattr(scene, how)(PYTORCHJOB)
    assert scene.told == []


@pytest.mark.parametrize("how", ["refresh", "sweep"])
def test_with_its_kind_every_object_is_gone(scene: Scene, how: str) -> None:
    train = scene.cluster.put(job("train", kind="PyTorchJob"))
    scene.refresh(PYTORCHJOB)
    scene.cluster.refused["PyTorchJob"] = 404
    getattr(scene, how)(PYTORCHJOB)
    assert scene.told == ["train"]
    assert scene.names == ["a1", "a2", "a3", "b1", "b2"]
    del scene.cluster.refused["PyTorchJob"]
    scene.cluster.put(train)  # the kind is installed again, and its object applied again
    getattr(scene, how)(PYTORCHJOB)
    assert "train" in scene.names


@pytest.mark.parametrize("how", ["refresh", "sweep"])
@pytest.mark.parametrize("code", [400, 403, 404, 405])
def test_a_kind_that_every_cluster_has_must_be_readable(scene: Scene, how: str, code: int) -> None:
    scene.cluster.refused["Job"] = code
    with pytest.raises(ApiUnavailable, match="does not know Job" if code == 404 else f"{code} Because"):
        getattr(scene, how)()
    assert len(scene.names) == 5, "nothing is concluded from a refusal"


@pytest.mark.parametrize("how", ["refresh", "sweep"])
def test_an_optional_kind_that_may_not_be_read_is_trouble(scene: Scene, how: str) -> None:
    scene.cluster.refused["PyTorchJob"] = 403
    with pytest.raises(ApiUnavailable, match="403"):
        getattr(scene, how)(PYTORCHJOB)


# A sweep.


def test_a_sweep_of_what_is_known_asks_for_no_object(scene: Scene) -> None:
    scene.sweep()
    assert scene.told == []
    assert scene.cluster.requests == [f"/apis/batch/v1/jobs {OURS}"] * 3


def test_a_sweep_asks_for_what_is_new_and_forgets_what_is_gone(scene: Scene) -> None:
    scene.cluster.put(job("a2", completions=7))
    scene.cluster.put(job("new", completions=8))
    scene.cluster.delete(job("b1"))
    scene.sweep()
    assert sorted(scene.told) == ["a2", "b1", "new"]
    assert scene.names == ["a1", "a2", "a3", "b2", "new"]
    assert [path for path in scene.cluster.requests if "?" not in path and OURS not in path] == [
        "/apis/batch/v1/namespaces/team/jobs/a2",
        "/apis/batch/v1/namespaces/team/jobs/new",
    ]
    found = scene.cache.get(Ref.of(job("new")))
    assert found is not None
    assert found["spec"] == {"completions": 8}, "not its metadata alone"


def test_a_sweep_that_finds_much_lists_instead(scene: Scene) -> None:
    for number in range(60):
        scene.cluster.put(job(f"n{number}"))
    scene.sweep()
    assert len(scene.names) == 65
    assert len(scene.told) == 60
    assert not [path for path in scene.cluster.requests if OURS not in path]


def test_what_ends_while_it_is_asked_for_is_left_to_the_next_sweep(scene: Scene) -> None:
    new = scene.cluster.put(job("new"))
    scene.cluster.before_object = lambda: scene.cluster.delete(new)
    scene.sweep()
    assert scene.told == []
    assert "new" not in scene.names


def test_an_object_that_may_not_be_read_is_trouble(scene: Scene) -> None:
    scene.cluster.put(job("new"))

    def forbid() -> None:
        scene.cluster.refused["Job"] = 403

    async def run() -> None:
        async with scene.client() as client:
            pages = client.pages

            async def then_forbidden(*args: Any, **options: Any) -> AsyncIterator[Any]:
                async for page in pages(*args, **options):
                    yield page
                forbid()

            client.pages = then_forbidden  # type: ignore[method-assign]
            await sweep(client, scene.cache, JOB)

    with pytest.raises(ApiUnavailable, match="403"):
        asyncio.run(run())


def test_what_an_event_has_told_meanwhile_is_not_told_again(scene: Scene) -> None:
    new = scene.cluster.put(job("new"))
    scene.cluster.before_object = lambda: scene.cache.put(new)
    scene.sweep()
    assert scene.told == []
    assert "new" in scene.names


def test_a_sweep_leaves_no_ghost_where_its_list_expires_in_the_middle(scene: Scene) -> None:
    def meanwhile(number: int) -> None:
        if number == 1:
            scene.cluster.before_page = lambda _: None
            scene.cluster.delete(job("a1"))
            scene.cluster.expire()

    scene.cluster.before_page = meanwhile
    scene.sweep()
    assert scene.names == ["a2", "a3", "b1", "b2"]


def test_users_own_objects_are_listed_whatever_their_labels() -> None:
    scene = Scene()
    spec = {"apiVersion": labels.API_VERSION, "kind": "FilterJob", "spec": {}}
    scene.cluster.put({**spec, "metadata": {"name": "x", "namespace": "team", "uid": "1"}})
    (api,) = (api for api in RESOURCES if api.kind == "FilterJob")
    scene.sweep(api)
    assert scene.told == ["x"]


def test_the_version_of_an_object_is_kept_for_the_next_sweep(scene: Scene) -> None:
    for ref in scene.cache.refs("batch/v1", "Job"):
        found = scene.cache.get(ref)
        assert found is not None
        assert version_of(found) == version_of(scene.cluster.objects[ref])
