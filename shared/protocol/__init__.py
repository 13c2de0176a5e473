"""Defines the messages of each hop, one module per hop.

`protoo`  browser ⇄ gateway: the frames of a WebSocket
`client`  the mediasoup messages inside them
`actions` the calls of the server API
`bus`     gateway ⇄ room worker
`media`   room worker ⇄ media node
`rtp`     the RTP dictionaries that travel inside all of them
`decoding` turns msgspec's exceptions into errors that name the field
"""
