"""Examples of the documentation; the tests run each of them."""
