"""The messages of gRPC: what the `.proto` files say, and the classes that are made from them."""
