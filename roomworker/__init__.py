"""The room worker: owns Room and Peer state.

The core is pure, synchronous code, one module per protocol object; nothing in it knows of Redis, RabbitMQ,
clocks or chance:

    room  session  peer  transport  producer  consumer      the objects, in memory and as stored (`record`, `loading`)
    ortc  codecs                                            RTP parameters: what is offered, taken and handed on
    dispatch                                                which handler a client's message goes to
    actions  messages  stats  limits                        what servers ask, peers tell, media nodes count; bounds
    mediaevents  resumption                                 what media nodes report; sessions without a connection
    steps                                                   how a handler asks a media node and is resumed

The shell drives it:

    runner (lane)   one room's messages in order, handlers suspended on media resumed
    slot            one room in this worker's hands: loading, committing, redoing
    partition       deliveries of one partition → slots; careful after a worker has died (`suspects`)
    committer       changed rooms → Redis, many per round trip
    outbox          committed messages → gateways, orders and requests → media nodes (`mediaclient`: their answers)
    store           rooms in Redis, `storage/commit.lua`
    worker          puts these together for one process, among the other workers (`balance`)
"""
