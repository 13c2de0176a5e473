"""The server API, by which an application's own server acts on rooms over HTTP on the gateways' internal port.

`operations` is the table of all operations; routes, the OpenAPI document and its HTML page are made from it.
"""
