"""The trunk: surfaces, analysis, pipeline, routing, telemetry. The only place where the other three rooms meet."""
