"""The node: sockets, clock, files, the learner link, the HTTP API and the command line.

Importing it costs nothing: no torch ever, and aiohttp only once the daemon starts.
"""
