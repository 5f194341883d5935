"""All that is served beside requests to models, and the commands that ask for it. Knows no server."""
