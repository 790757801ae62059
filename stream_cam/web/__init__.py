"""The browser page: pictures, statistics and controls of a run, served over HTTP.

Starlette and uvicorn do the protocol. They are small, typed and long maintained by the same people.
They include WebSockets and backpressure, and need no thread per viewer. Only a run with a page
imports them.
"""
