//! The BitTorrent peer: metainfo, wire, swarm, picker, choker, disk, trackers.
