"""Guards: may this handshake proceed?"""
