"""The profiles of load, which say how often virtual peers do what."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Profile:
    """The rates at which virtual peers act. They are per peer and second; `stay` and `whole` are mean seconds.

    `stay` is the time in a room before a peer leaves and joins again; 0 means until the end of the test, unless
    `--churn` says otherwise. `whole` is the time before a connection is cut and resumed; 0 means never.
    """

    about: str
    joins: bool = True
    media: bool = True
    messages: float = 0.0
    to_one: float = 0.2
    """Fraction of the messages that are sent to one peer; the others are sent to all."""
    message_bytes: int = 120
    controls: float = 0.0
    """Rate of pauses, resumes, profiles, ICE restarts, closed and new producers, and queries together."""
    stay: float = 0.0
    whole: float = 0.0


PROFILES: Final[dict[str, Profile]] = {
    "calls": Profile(
        "What browsers do: two transports, audio and video, every consumer enabled; then now and then a message, "
        "a pause or resume, another profile, and a peer that leaves and joins again.",
        messages=0.2,
        controls=0.2,
        stay=120,
    ),
    "messages": Profile(
        "Peers join and send messages, four a second each; no media. Measures relay and fan-out.",
        media=False,
        messages=4,
    ),
    "presence": Profile(
        "Peers join, write now and then, leave after a minute and join again; no media. Measures many quiet rooms.",
        media=False,
        messages=0.05,
        stay=60,
    ),
    "joins": Profile(
        "As calls, but nobody stays: every peer leaves after ten seconds and joins again. Measures joining.",
        messages=0.1,
        stay=10,
    ),
    "flaky": Profile(
        "As calls, over bad networks: each connection is cut every 20 seconds and the session resumed.",
        messages=0.5,
        controls=0.2,
        stay=120,
        whole=20,
    ),
    "idle": Profile(
        "Connects and stays, without joining. Measures what a connection costs.", joins=False, media=False
    ),
}


def described() -> str:
    """Returns the profiles and what they do, one line each."""
    return "\n".join(f"{name}: {profile.about}" for name, profile in PROFILES.items())
