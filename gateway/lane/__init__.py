"""The ways past the parser: requests whose bytes have been seen are answered, or passed on, as bytes."""
