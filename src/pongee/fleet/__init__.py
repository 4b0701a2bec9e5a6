"""The processes of one application: who they are, and what is done by all of them."""
