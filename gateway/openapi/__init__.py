"""The description of everything that is served over HTTP, as OpenAPI 3.1. It describes; nothing is checked by it."""
