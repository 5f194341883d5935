"""Writes the configurations of the nginx processes that the gateway is measured against. Pure."""

from pathlib import Path

# One process, pinned from outside; everything it writes lies in the directory of the run.
_FRAME = """\
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    client_body_buffer_size 64k;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{servers}
}}
"""

_INSTANT = """\
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{ return 200 {body}; }}
    }}"""

# The cache answers what it has; a miss, which happens once, goes to the origin. Its `Cache-Status` replaces the
# origin's, so that the reply has as many headers and a hit can be told.
_CACHING = """\
    proxy_cache_path {directory}/cache keys_zone=replies:8m;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://{origin};
            proxy_cache replies;
            proxy_cache_methods POST;
            proxy_cache_key "$request_uri|$request_body";
            proxy_cache_valid 200 1h;
            proxy_hide_header Cache-Status;
            add_header Cache-Status $upstream_cache_status;
        }}
    }}"""

_PASSING = """\
    upstream instant {{
        server {origin};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://instant;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}"""


def instant(directory: Path, port: int, body: str) -> str:
    """Return the configuration of an upstream that answers every request with `body`."""
    return _framed(directory, _INSTANT.format(port=port, body=_quoted(body)))


def caching(directory: Path, port: int, origin: str) -> str:
    """Return the configuration of a cache, keyed on the request's body, of what `origin` (host:port) answers."""
    return _framed(directory, _CACHING.format(port=port, directory=directory, origin=origin))


def passing(directory: Path, port: int, origin: str) -> str:
    """Return the configuration of a proxy that keeps its connections to `origin` (host:port)."""
    return _framed(directory, _PASSING.format(port=port, origin=origin))


def _framed(directory: Path, servers: str) -> str:
    return _FRAME.format(directory=directory, servers=servers)


def _quoted(text: str) -> str:
    """Write a string of nginx. Raises `ValueError` for a `$`, which nginx would replace and cannot escape."""
    if "$" in text:
        raise ValueError(f"nginx cannot return a '$', got {text!r}")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
