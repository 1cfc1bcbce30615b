//! What a [`Relay`](crate::Relay) is told at its start.

use std::net::SocketAddr;

use dunlin_chain::indexes::Indexes;

use crate::wire::services;

/// Settings of a Bitcoin peer.
#[derive(Clone, Debug)]
pub struct Config {
    /// Every random choice comes from it.
    pub seed: [u8; 32],
    /// BIP 14 name, such as `/Dunlin:0.1.0/`.
    pub user_agent: String,
    /// What we offer, see [`services`]. With [`services::P2P_V2`] the encrypted transport is asked for on dialled links;
    /// their codec must then speak it ([`Codec::encrypting`](crate::Codec::encrypting)).
    pub services: u64,
    /// When not empty: dial only these, and keep them connected.
    pub connect_only: Vec<SocketAddr>,
    /// Dial these besides the automatic ones, and keep them connected.
    pub add_peers: Vec<SocketAddr>,
    /// The port that others can dial; `None` when not listening.
    pub listen_port: Option<u16>,
    /// Our address as others reach it, when known.
    pub external: Option<SocketAddr>,
    /// How many links to open by ourselves.
    pub max_outbound: usize,
    /// How many more to open that relay blocks only; none without others.
    pub max_block_relay: usize,
    /// Addresses that relayed blocks only when the last run ended: dialled first.
    pub anchors: Vec<SocketAddr>,
    /// Names to ask for addresses while too few peers are found, see [`dns_seeds`](crate::dns_seeds).
    pub dns_seeds: Vec<String>,
    /// How many inbound links to keep.
    pub max_inbound: usize,
    /// Serve compact block filters (BIP 157) from the index of filters among these, once it has reached the tip.
    pub block_filters: Option<Indexes>,
    /// Take no transactions from peers, and tell them so; our own still go to those who want them.
    pub blocks_only: bool,
    /// Announce and request transactions without the random delays that hide where they came from. For regtest, where
    /// nobody needs hiding and everybody is waiting.
    pub immediate: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: [0; 32],
            user_agent: concat!("/Dunlin:", env!("CARGO_PKG_VERSION"), "/").to_owned(),
            services: services::NETWORK | services::WITNESS | services::NETWORK_LIMITED,
            connect_only: Vec::new(),
            add_peers: Vec::new(),
            listen_port: None,
            external: None,
            max_outbound: 8,
            max_block_relay: 2,
            anchors: Vec::new(),
            dns_seeds: Vec::new(),
            max_inbound: 114,
            block_filters: None,
            blocks_only: false,
            immediate: false,
        }
    }
}
