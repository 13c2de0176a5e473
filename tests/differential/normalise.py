"""Makes what both sides sent comparable, and finds every difference that remains.

Ids and SSRCs that a side made up get canonical names in the order in which a peer first sees them; a peer's names
start anew when it joins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

Json = dict[str, Any]


class _Missing:
    def __repr__(self) -> str:
        return "(missing)"


MISSING = _Missing()

OF_A_CONSUMER = (
    "newConsumer",
    "consumerClosed",
    "consumerPaused",
    "consumerResumed",
    "consumerPreferredProfileSet",
    "consumerEffectiveProfileChanged",
    "consumerStats",
)


@dataclass(frozen=True)
class Difference:
    """One value that differs: `path` leads to it within both frames. A whole frame may be missing (`path` empty).

    `operation` is the one that brought it about, `at` its place in the sequence. Without a `peer` it is one between
    the engines' pictures, or in what was raised.
    """

    at: int
    operation: Json
    peer: str | None
    path: tuple[Any, ...]
    theirs: Any
    ours: Any
    their_frame: Any = None

    def __str__(self) -> str:
        where = ".".join(map(str, self.path)) or "whole frame"
        whom = f"to {self.peer}: " if self.peer else ""
        return f"operation {self.at}, {whom}{where}: theirs {self.theirs!r}, ours {self.ours!r}"

    @property
    def method(self) -> str | None:
        """The method of the notification that contains the difference."""
        frame = self.their_frame if isinstance(self.their_frame, dict) else self.ours
        return frame.get("notification", {}).get("method") if isinstance(frame, dict) else None

    @property
    def kind(self) -> tuple[Any, ...]:
        """A key that equals that of the same difference in other sequences."""
        named = tuple(step for step in self.path if isinstance(step, str) and not any(map(str.isdigit, step)))
        return self.method, named, self.theirs is MISSING, self.ours is MISSING


class Names:
    """The canonical names of one side's ids towards one peer."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, int], str] = {}

    def consumer(self, id_: Any) -> str:
        return self._names.setdefault(("consumer", id_), f"consumer {self._count('consumer')}")

    def _ssrc(self, ssrc: Any) -> str:
        return self._names.setdefault(("ssrc", ssrc), f"ssrc {self._count('ssrc')}")

    def _count(self, kind: str) -> int:
        return sum(known == kind for known, _ in self._names)

    def described(self, consumer: Json) -> Json:
        """A consumer as in `newConsumer` and the answer to `join`."""
        parameters = consumer["rtpParameters"]
        encodings = [self._encoding(encoding) for encoding in parameters["encodings"]]
        return {
            **consumer,
            "id": self.consumer(consumer["id"]),
            "rtpParameters": {**parameters, "encodings": encodings},
        }

    def _encoding(self, encoding: Json) -> Json:
        named = {**encoding, "ssrc": self._ssrc(encoding["ssrc"])}
        if "rtx" in encoding:
            named["rtx"] = {"ssrc": self._ssrc(encoding["rtx"]["ssrc"])}
        return named


def canonical(results: list[Json]) -> list[Json]:
    """Returns the results with ids and SSRCs replaced by canonical names."""
    names: dict[str, Names] = {}
    return [
        {
            **result,
            "frames": {
                peer: [_canonical_frame(names, peer, frame) for frame in frames]
                for peer, frames in result["frames"].items()
            },
        }
        for result in results
    ]


def _canonical_frame(names: dict[str, Names], peer: str, frame: Json) -> Json:
    data = frame.get("answer", {}).get("data", {})
    if "peers" in data:
        known = names[peer] = Names()
        peers = [
            {**other, "consumers": [known.described(it) for it in other["consumers"]]} for other in data["peers"]
        ]
        return {**frame, "answer": {"ok": True, "data": {**data, "peers": peers}}}
    notification = frame.get("notification")
    if notification is None or notification["method"] not in OF_A_CONSUMER:
        return frame
    known = names.setdefault(peer, Names())
    if notification["method"] == "newConsumer":
        return {**frame, "notification": known.described(notification)}
    return {**frame, "notification": {**notification, "id": known.consumer(notification["id"])}}


def differences(operations: list[Json], theirs: list[Json], ours: list[Json]) -> Iterator[Difference]:
    """Everything in which two canonical results differ, peer by peer and frame by frame in their order."""
    for at, (operation, their, our) in enumerate(zip(operations, theirs, ours, strict=True)):
        for peer in dict.fromkeys((*their["frames"], *our["frames"])):
            their_frames, our_frames = their["frames"].get(peer, []), our["frames"].get(peer, [])
            for one, other in _aligned(their_frames, our_frames):
                for path, left, right in _unequal(one, other):
                    yield Difference(at, operation, peer, path, left, right, one)
        for path, left, right in _unequal(their["engine"], our["engine"], ("engine",)):
            yield Difference(at, operation, None, path, left, right)
        if bool(their["uncaught"]) or bool(our["uncaught"]):
            yield Difference(at, operation, None, ("uncaught",), their["uncaught"], our["uncaught"])


def _aligned(theirs: list[Json], ours: list[Json]) -> Iterator[tuple[Any, Any]]:
    matcher = SequenceMatcher(None, [_head(it) for it in theirs], [_head(it) for it in ours], autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(theirs[i:i_end], ours[j:j_end], strict=True)
        else:
            yield from ((frame, MISSING) for frame in theirs[i:i_end])
            yield from ((MISSING, frame) for frame in ours[j:j_end])


def _head(frame: Json) -> tuple[Any, ...]:
    """Returns the key by which frames of both sides are matched."""
    if "answer" in frame:
        return ("answer",)
    notification = frame["notification"]
    return notification["method"], notification.get("id"), notification.get("name")


def _unequal(theirs: Any, ours: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys((*theirs, *ours)):
            if not path and key == "sourcesPaused":  # the oracle's remark, not part of the frame
                continue
            yield from _unequal(theirs.get(key, MISSING), ours.get(key, MISSING), (*path, key))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for n, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            yield from _unequal(one, other, (*path, n))
    elif isinstance(theirs, bool) != isinstance(ours, bool) or theirs != ours:
        yield path, theirs, ours
