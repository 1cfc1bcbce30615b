//! What a [`Relay`](crate::Relay) is told at its start.

use std::net::SocketAddr;

use dunlin_chain::indexes::Indexes;
use dunlin_peer::{NetAddr, NetClass, NetClasses};

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
    pub connect_only: Vec<NetAddr>,
    /// Dial these besides the automatic ones, and keep them connected.
    pub add_peers: Vec<NetAddr>,
    /// The port that others can dial; `None` when not listening.
    pub listen_port: Option<u16>,
    /// Our addresses as others reach them, as far as known.
    pub external: Vec<NetAddr>,
    /// Networks that we reach: others' addresses are neither kept nor dialled. An address of CJDNS is known as such only
    /// when that network is among them.
    pub reachable: NetClasses,
    /// Links that come in here come through Tor, which listens for us.
    pub onion_bind: Option<SocketAddr>,
    /// How many links to open by ourselves.
    pub max_outbound: usize,
    /// How many more to open that relay blocks only; none without others.
    pub max_block_relay: usize,
    /// Addresses that relayed blocks only when the last run ended: dialled first.
    pub anchors: Vec<NetAddr>,
    /// Names to ask for addresses while too few peers are found, see [`dns_seeds`](crate::dns_seeds).
    pub dns_seeds: Vec<String>,
    /// Addresses to begin with on a network of which nothing is known, see [`fixed_seeds`](crate::fixed_seeds).
    pub fixed_seeds: Vec<NetAddr>,
    /// How many inbound links to keep.
    pub max_inbound: usize,
    /// Serve compact block filters (BIP 157) from the index of filters among these, once it has reached the tip.
    pub block_filters: Option<Indexes>,
    /// Take no transactions from peers, and tell them so; our own still go to those who want them.
    pub blocks_only: bool,
    /// Tell own transactions to a few peers over short links of their own on these networks, through proxies that hide
    /// where we are, and to nobody else; none of them tells everybody (see [`Kind::Private`](crate::Kind::Private)).
    pub private_broadcast: NetClasses,
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
            external: Vec::new(),
            reachable: [NetClass::Ipv4, NetClass::Ipv6].into_iter().collect(),
            onion_bind: None,
            max_outbound: 8,
            max_block_relay: 2,
            anchors: Vec::new(),
            dns_seeds: Vec::new(),
            fixed_seeds: Vec::new(),
            max_inbound: 114,
            block_filters: None,
            blocks_only: false,
            private_broadcast: NetClasses::default(),
            immediate: false,
        }
    }
}
