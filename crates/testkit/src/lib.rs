//! Real peers for tests: bitcoind, libtorrent, Transmission, a browser, each on loopback.
