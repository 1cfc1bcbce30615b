//! The Bitcoin peer: wire codec, handshake, header and block sync, flooding, addresses.
