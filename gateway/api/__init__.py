"""The server API: what an application's own server asks of rooms, over HTTP on the gateways' internal port.

`operations` is the table of all of it; routes, the OpenAPI document and the page for people are made from it.
"""
