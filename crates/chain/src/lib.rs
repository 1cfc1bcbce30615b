//! Consensus: headers, blocks, coins, undo, reorganisations, block files. No network.
