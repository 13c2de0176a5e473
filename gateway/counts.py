"""What a gateway counts. Names end as metrics do; nothing here is about one room, peer or client."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    frames_in_total: int = 0
    frames_out_total: int = 0
    refused_total: int = 0
    complaints_total: int = 0
    dropped_total: int = 0
    too_fast_total: int = 0
    """Frames beyond a connection's rate, whether refused or dropped."""
    responses_ignored_total: int = 0
    strangers_total: int = 0
    """Messages for a connection that is gone or whose session is another, and answers that nobody waits for."""
    repeated_total: int = 0
    """Sessions whose inputs were published again after silence."""
    connections_total: int = 0
    resumed_total: int = 0
    """Sessions that went on over a new connection to this gateway."""
    resumes_refused_total: int = 0
    duplicates_total: int = 0
    """Frames that a client has sent before."""
    turned_away_total: int = 0
    too_slow_total: int = 0
    batches_in_total: int = 0
    batches_out_total: int = 0
    items_out_total: int = 0
