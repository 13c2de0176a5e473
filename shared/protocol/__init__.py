"""The messages of each hop, one module per hop.

`client`  browser ⇄ gateway (protoo frames) and the mediasoup messages inside them
`bus`     gateway ⇄ room worker
`media`   room worker ⇄ media node
`rtp`     the RTP dictionaries that travel inside all of them
"""
