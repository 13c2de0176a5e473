"""The room worker: owns the state of rooms and peers.

    core/        pure: the objects of a room, what each message changes, who closes whom
    storage/     rooms in Redis or in memory (`port`: one interface), loading, how long sent messages are kept
    messaging/   committed messages to gateways, requests and orders to media nodes
    runtime/     the actor of one room: its messages in order, commits, redoing, replays
    partitions/  a partition's deliveries, its assignment to workers, ticks, media nodes, messages that kill workers
    worker.py    assembles one process
    metrics.py   exposes what all of them count

Imports go down only: worker, partitions, runtime, messaging, storage, core, counters.
"""
