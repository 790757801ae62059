"""The browser page: pictures, statistics and controls of a run, served over HTTP.

Starlette and uvicorn do the protocol: small, typed, kept by the same people for years, WebSockets
and backpressure included, and no thread a viewer. Nothing here is imported unless a run has a page.
"""
