"""What is wrong between objects: the same one twice, a ``from`` that names nothing, a circle."""

from collections.abc import Iterator, Mapping, Sequence

from posttrain_contract.inputs import PUBLISHES
from posttrain_operator.api.resources import KINDS
from posttrain_operator.cluster import Ref
from posttrain_operator.labels import API_VERSION

from posttrain.documents import Finding, Path
from posttrain.problems import Manifest
from posttrain.schema import inputs_in, nearest

_MOST_NAMES = 10


def check_references(manifests: Sequence[Manifest], *, unreadable: bool) -> Iterator[Finding]:
    """Everything that is wrong between objects.

    ``unreadable`` says that some document could not be read, so that an object that seems to be missing may be there.
    """
    known: dict[Ref, Manifest] = {}
    for manifest in manifests:
        ref = manifest.ref
        if ref is None:
            continue
        if ref in known:
            first = known[ref].document.position(("metadata", "name"))
            message = f"{ref} is here twice, first at {first}; rename or remove one"
            yield manifest.finding(("metadata", "name"), message)
        else:
            known[ref] = manifest
    reading = {ref: dict(_references(manifest, ref.namespace)) for ref, manifest in known.items()}
    for ref, references in reading.items():
        for path, (text, upstream) in references.items():
            wrong = _judge(path, text, upstream, known, ref)
            if wrong is not None:
                hint = "; it may be in the document that could not be read" if unreadable and upstream else ""
                yield known[ref].finding(path, wrong + hint)
    yield from _cycles(known, reading)


_References = Mapping[Path, tuple[str, Ref | None]]


def _references(manifest: Manifest, namespace: str) -> Iterator[tuple[Path, tuple[str, Ref | None]]]:
    for path, text in inputs_in(manifest.raw["kind"], manifest.raw.get("spec")):
        kind, slash, name = text.partition("/")
        yield path, (text, Ref(API_VERSION, kind, namespace, name) if slash and name else None)


def _judge(path: Path, text: str, upstream: Ref | None, known: Mapping[Ref, Manifest], reader: Ref) -> str | None:
    """What is wrong with one ``from``, or None."""
    needed = KINDS[reader.kind].spec.needs.get(".".join(str(part) for part in path[1:-1]))
    kinds = [kind for kind, published in PUBLISHES.items() if needed in (None, published)]
    if upstream is not None and upstream in known and upstream.kind in kinds:
        return None
    readable = sorted(
        str(ref) for ref in known if ref.kind in kinds and ref.namespace == reader.namespace and ref != reader
    )
    near = nearest(text, readable)
    hint = f"; did you mean {near}?" if near else ""
    if upstream is None:
        return f"must be KIND/NAME, where KIND is {' or '.join(kinds)}, found {text!r}{hint}"
    if upstream.kind not in kinds:
        return f"must name the {needed or 'artifact'} of a {' or '.join(kinds)}, found {text!r}{hint}"
    return f"{text} does not exist among the given objects; {_there_are(upstream, known, readable)}{hint}"


def _there_are(missing: Ref, known: Mapping[Ref, Manifest], readable: Sequence[str]) -> str:
    others = sorted(ref.namespace for ref in known if str(ref) == str(missing))
    if others:
        return f"one is in namespace {others[0]}, but an object reads only from its own, which is {missing.namespace}"
    if not readable:
        return "there is none to read from"
    more = f" and {len(readable) - _MOST_NAMES} more" if len(readable) > _MOST_NAMES else ""
    return f"there is {', '.join(readable[:_MOST_NAMES])}{more}"


def _cycles(known: Mapping[Ref, Manifest], reading: Mapping[Ref, _References]) -> Iterator[Finding]:
    """One finding for each circle, at the ``from`` that closes it."""
    done: set[Ref] = set()
    for start in known:
        if start not in done:
            yield from _cycles_from(start, known, reading, done)


def _cycles_from(
    start: Ref, known: Mapping[Ref, Manifest], reading: Mapping[Ref, _References], done: set[Ref]
) -> Iterator[Finding]:
    """Walks depth first with a stack of its own: a pipeline may be longer than Python's."""
    trail = [start]
    pending = [iter(reading[start].items())]
    while trail:
        step = next(pending[-1], None)
        if step is None:
            done.add(trail.pop())
            pending.pop()
            continue
        path, (_, upstream) = step
        if upstream in trail:
            circle = [*trail[trail.index(upstream) :], upstream]
            message = f"reads from itself: {' -> '.join(str(ref) for ref in circle)}"
            yield known[trail[-1]].finding(path, message)
        elif upstream is not None and upstream in known and upstream not in done:
            trail.append(upstream)
            pending.append(iter(reading[upstream].items()))
