"""The room worker: owns Room and Peer state.

The core is pure, synchronous code, one module per protocol object; nothing in it knows of Redis, RabbitMQ,
clocks or chance:

    room  peer  session  transport  producer  consumer  ortc  dispatch

The shell drives it:

    runner      one room's messages in order, handlers suspended on media resumed
    partition   deliveries of one partition → runners
    committer   changed rooms → Redis, many per round trip
    outbox      committed messages → gateways, orders and requests → media nodes
    store       rooms in Redis, `lua/commit.lua`
    worker      puts these together for one process
"""
