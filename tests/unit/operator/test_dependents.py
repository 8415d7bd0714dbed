"""Who reads from whom: the readers of an object are found without a look at every object."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from posttrain_operator.api.resources import upstream_refs
from posttrain_operator.cluster import Json, Ref
from posttrain_operator.dependents import Dependents
from posttrain_operator.labels import API_VERSION

DATA = {"uri": "pvc://data/x"}


def ref(kind: str, name: str, namespace: str = "team") -> Ref:
    return Ref(API_VERSION, kind, namespace, name)


def obj(name: str, uid: str = "1", *, kind: str = "FineTuneJob", namespace: str = "team", **spec: Any) -> Json:
    metadata = {"name": name, "namespace": namespace, "uid": uid}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def test_the_readers_of_an_object_are_those_that_name_it() -> None:
    readers = Dependents()
    readers.seen(obj("a", model=DATA, dataset={"from": "FilterJob/hard"}))
    readers.seen(obj("b", model={"from": "FineTuneJob/a"}, dataset={"from": "FilterJob/hard"}))
    readers.seen(obj("c", model=DATA, dataset=DATA))
    assert set(readers.of(ref("FilterJob", "hard"))) == {ref("FineTuneJob", "a"), ref("FineTuneJob", "b")}
    assert readers.of(ref("FineTuneJob", "a")) == (ref("FineTuneJob", "b"),)
    assert readers.of(ref("FineTuneJob", "c")) == ()


def test_an_object_is_read_within_its_namespace_alone() -> None:
    readers = Dependents()
    readers.seen(obj("a", namespace="other", dataset={"from": "FilterJob/hard"}))
    assert readers.of(ref("FilterJob", "hard")) == ()
    assert readers.of(ref("FilterJob", "hard", "other")) == (ref("FineTuneJob", "a", "other"),)


def test_what_is_named_in_a_list_or_deep_inside_is_found_too() -> None:
    readers = Dependents()
    deep = [{"generate": {"dataset": {"from": "FilterJob/deep"}}}]
    readers.seen(obj("a", dataset={"from": "FilterJob/hard"}, evaluation=deep))
    assert readers.of(ref("FilterJob", "deep")) == readers.of(ref("FilterJob", "hard")) == (ref("FineTuneJob", "a"),)


def test_a_reader_that_is_gone_reads_nothing() -> None:
    readers = Dependents()
    readers.seen(obj("a", dataset={"from": "FilterJob/hard"}))
    readers.gone(ref("FineTuneJob", "a"))
    readers.gone(ref("FineTuneJob", "a"))
    assert readers.of(ref("FilterJob", "hard")) == ()
    assert (readers._readers, readers._read) == ({}, {})


def test_an_object_of_the_same_name_may_read_something_else() -> None:
    readers = Dependents()
    readers.seen(obj("a", uid="1", dataset={"from": "FilterJob/hard"}))
    readers.seen(obj("a", uid="2", dataset={"from": "FilterJob/easy"}))
    assert readers.of(ref("FilterJob", "hard")) == ()
    assert readers.of(ref("FilterJob", "easy")) == (ref("FineTuneJob", "a"),)


def test_what_is_garbled_reads_nothing() -> None:
    readers = Dependents()
    garbled: tuple[Any, ...] = (None, [], "text", {"from": 7}, {"from": "Nothing"}, {"from": "Pod/x"})
    for number, spec in enumerate(garbled):
        readers.seen({**obj(f"n{number}"), "spec": spec})
        readers.seen({**obj(f"m{number}"), "spec": {"dataset": spec}})
    assert readers._readers == {}


SPECS = st.fixed_dictionaries(
    {
        "model": st.sampled_from([DATA, {"from": "FineTuneJob/a"}]),
        "dataset": st.sampled_from([DATA, {"from": "FilterJob/x"}]),
    }
)
STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), SPECS, st.booleans()), max_size=20)


@settings(deadline=None, max_examples=50)
@given(STEPS)
def test_it_says_what_a_look_at_every_object_says(steps: list[tuple[str, int, Json, bool]]) -> None:
    readers, present = Dependents(), dict[Ref, Json]()
    for name, uid, spec, deleted in steps:
        mine = ref("FineTuneJob", name)
        if deleted:
            present.pop(mine, None)
            readers.gone(mine)
        else:
            old = present.get(mine)
            same = old is not None and old["metadata"]["uid"] == str(uid)
            present[mine] = old if old is not None and same else obj(name, uid=str(uid), **spec)
            readers.seen(present[mine])
        for upstream in (ref("FineTuneJob", "a"), ref("FilterJob", "x")):
            scanned = {reader for reader, raw in present.items() if upstream in upstream_refs(raw).values()}
            assert set(readers.of(upstream)) == scanned
