"""The parts that `gateway/app.py` is built from: concrete objects out of settings, a room of the gateway at a time."""
