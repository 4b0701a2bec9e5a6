"""The client protocol: both encodings, and clients that speak them."""
