"""The Centrifuge client protocol, version 2: what the official client SDKs speak."""
