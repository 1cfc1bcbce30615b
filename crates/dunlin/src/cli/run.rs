//! The options of `dunlin run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use bitcoin::{ScriptBuf, Work};
use clap::{Args, ValueEnum};
use dunlin_chain::indexes::IndexKind;
use dunlin_chain::{Network, Prune, TestRule};
use dunlin_peer::NetAddr;
use dunlin_relay::Subnet;

use super::{DiscoveryArgs, NetworkArgs, QueueArgs, RateArgs};

/// A part of the program that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The Bitcoin peer
    Bitcoin,
    /// The BitTorrent peer
    Torrent,
    /// The dashboard, its REST interface and /metrics
    Dashboard,
}

/// The least that block files must be allowed to take, in MiB; Core's value.
const MIN_PRUNE: u64 = 550;

fn prune(text: &str) -> Result<Prune, String> {
    match text.parse::<u64>() {
        Ok(0) => Ok(Prune::Off),
        Ok(1) => Ok(Prune::Manual),
        Ok(mib) if (MIN_PRUNE..=1 << 40).contains(&mib) => Ok(Prune::Target(mib << 20)),
        _ => Err(format!(
            "takes at least {MIN_PRUNE} MiB, 1 to prune by hand, or 0 to keep all"
        )),
    }
}

/// BIP 14: a comment holds none of the signs that divide the name.
fn comment(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " .,;-_?@".contains(c);
    match text.chars().all(allowed) && text.len() <= 128 {
        true => Ok(text.to_owned()),
        false => Err("takes up to 128 letters, digits, spaces and .,;-_?@".to_owned()),
    }
}

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Every option can stand in a TOML file under its long name without the dashes, such as\n  \
                        network = \"regtest\"\n  add-peer = [\"192.0.2.7:8333\", \"192.0.2.8:8333\"]\n\
                        DATA/dunlin.toml is read when it is there; the command line wins over the file."
)]
pub(crate) struct RunArgs {
    /// The Bitcoin network: mainnet, testnet3, testnet4, signet or regtest
    #[arg(long, value_name = "NETWORK", default_value = "mainnet")]
    pub(crate) network: Network,
    /// Where everything is kept [default: ~/.dunlin]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A settings file [default: DATA/dunlin.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Leave out a part of the program (repeatable)
    #[arg(long, value_name = "PART")]
    pub(crate) disable: Vec<Part>,

    /// Listen for Bitcoin peers here [default: the network's port on all addresses; loopback on regtest]
    #[arg(long, value_name = "ADDR", help_heading = "Bitcoin")]
    pub(crate) listen: Option<SocketAddr>,
    /// Listen for no Bitcoin peers
    #[arg(long, conflicts_with = "listen", help_heading = "Bitcoin")]
    pub(crate) no_listen: bool,
    /// Open no connections to Bitcoin peers but those that are asked for
    #[arg(long, conflicts_with = "connect", help_heading = "Bitcoin")]
    pub(crate) no_dial: bool,
    /// Connect only to these peers (repeatable)
    #[arg(long, value_name = "ADDR", help_heading = "Bitcoin")]
    pub(crate) connect: Vec<NetAddr>,
    /// Keep a connection to this peer too (repeatable)
    #[arg(long, value_name = "ADDR", help_heading = "Bitcoin")]
    pub(crate) add_peer: Vec<NetAddr>,
    /// Take no transactions from peers
    #[arg(long, help_heading = "Bitcoin")]
    pub(crate) blocks_only: bool,
    #[command(flatten)]
    pub(crate) networks: NetworkArgs,
    /// How many peers may connect to us
    #[arg(long, value_name = "N", default_value_t = 114, help_heading = "Bitcoin")]
    pub(crate) max_inbound: usize,
    /// Never ask DNS seeds for addresses
    #[arg(long, help_heading = "Bitcoin")]
    pub(crate) no_dns_seed: bool,
    /// Speak the plain transport only, never the encrypted one (BIP 324)
    #[arg(long, help_heading = "Bitcoin")]
    pub(crate) no_v2transport: bool,
    /// Say this, too, when we tell Bitcoin peers our name (repeatable)
    #[arg(long, value_name = "TEXT", value_parser = comment, help_heading = "Bitcoin")]
    pub(crate) ua_comment: Vec<String>,
    /// Run this with a shell at each new tip; %s stands for its hash
    #[arg(long, value_name = "COMMAND", help_heading = "Bitcoin")]
    pub(crate) block_notify: Option<String>,
    /// Run this with a shell when there is something to be warned of; %s stands for what
    #[arg(long, value_name = "COMMAND", help_heading = "Bitcoin")]
    pub(crate) alert_notify: Option<String>,
    /// Run this with a shell once RPC answers (repeatable)
    #[arg(long, value_name = "COMMAND", help_heading = "RPC")]
    pub(crate) startup_notify: Vec<String>,
    /// Run this with a shell before anything is stopped, and wait for its end (repeatable)
    #[arg(long, value_name = "COMMAND", help_heading = "RPC")]
    pub(crate) shutdown_notify: Vec<String>,
    /// Threads that check scripts [default: one for each processor, at most 16]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64),
          help_heading = "Bitcoin")]
    pub(crate) script_threads: Option<usize>,
    /// Memory for coins not yet written, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 450, value_parser = clap::value_parser!(u64).range(4..=1_048_576),
          help_heading = "Bitcoin")]
    pub(crate) db_cache: u64,
    /// Delete old block files to keep them near this size, in MiB, at least 550; 1 deletes only when pruneblockchain
    /// asks; 0 keeps all
    #[arg(long, value_name = "MIB", default_value = "0", value_parser = prune, help_heading = "Bitcoin")]
    pub(crate) prune: Prune,
    /// Take blocks from a file, or from a folder of blk?????.dat files, as Bitcoin Core writes them (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Bitcoin")]
    pub(crate) load_block: Vec<PathBuf>,
    /// Make the index of blocks and the coins anew from our block files
    #[arg(long, help_heading = "Bitcoin")]
    pub(crate) reindex: bool,
    /// Make only the coins anew
    #[arg(long, conflicts_with = "reindex", help_heading = "Bitcoin")]
    pub(crate) reindex_chainstate: bool,
    /// Take no chain of headers for the real one that has less work than this [default: pinned for each network]
    #[arg(long, value_name = "HEX", value_parser = work, help_heading = "Bitcoin")]
    pub(crate) minimum_chain_work: Option<Work>,
    /// On regtest, `bip94`, or `NAME@HEIGHT`: bip34, dersig, cltv, csv or segwit holds from this height on (repeatable)
    #[arg(long, value_name = "RULE", help_heading = "Bitcoin")]
    pub(crate) test_rule: Vec<TestRule>,
    /// On regtest, keep blocks in small files, and let pruning begin at height 100
    #[arg(long, help_heading = "Bitcoin")]
    pub(crate) fast_prune: bool,
    /// Run a signet of your own: its blocks satisfy this script (BIP 325); `dunlin mine --signet-key FILE` signs them
    #[arg(long, value_name = "HEX", value_parser = script, help_heading = "Bitcoin")]
    pub(crate) signet_challenge: Option<ScriptBuf>,
    /// Skip script checks below this block, or `none` to check every script [default: pinned for each network]
    #[arg(long, value_name = "HASH|none", help_heading = "Bitcoin")]
    pub(crate) assume_valid: Option<String>,
    /// Begin an empty chain with these hints (a file of `dunlin chain hints`): no coin is looked up until the hinted
    /// height. Above the block that --assume-valid names every script is checked with coins that peers tell (BIP 455);
    /// without such peers the ordinary sync begins after a minute. Indexes need --assume-valid none
    #[arg(long, value_name = "FILE", help_heading = "Bitcoin")]
    pub(crate) swiftsync: Option<PathBuf>,
    /// Build indexes and keep them: tx, script, spender, filter, stats (repeatable, or separated by commas)
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Bitcoin")]
    pub(crate) index: Vec<IndexKind>,
    /// Serve compact block filters to peers (BIP 157); needs the index filter
    #[arg(long, help_heading = "Bitcoin")]
    pub(crate) peer_block_filters: bool,

    /// Serve JSON-RPC here; the cookie is DATA/.cookie, or DATA/NETWORK/.cookie beside mainnet
    /// (repeatable) [default: the network's RPC port on loopback]
    #[arg(long, value_name = "ADDR", help_heading = "RPC")]
    pub(crate) rpc_listen: Vec<SocketAddr>,
    /// Take calls from this network, too, not from this machine alone (repeatable). They are not encrypted
    #[arg(long, value_name = "SUBNET", help_heading = "RPC")]
    pub(crate) rpc_allow: Vec<Subnet>,
    /// Let a user call these methods alone (repeatable)
    #[arg(long, value_name = "USER:METHOD,...", help_heading = "RPC")]
    pub(crate) rpc_whitelist: Vec<String>,
    /// Whether a user without a list may call nothing [default: true once there is a list]
    #[arg(long, value_name = "true|false", help_heading = "RPC")]
    pub(crate) rpc_whitelist_default: Option<bool>,
    /// Another RPC login as Core's rpcauth.py makes it: USER:SALT$HASH (repeatable)
    #[arg(long, value_name = "USER:SALT$HASH", help_heading = "RPC")]
    pub(crate) rpc_auth: Vec<String>,
    /// Serve Core's REST interface, which asks for no login, at the same address
    #[arg(long, help_heading = "RPC")]
    pub(crate) rest: bool,

    /// Listen for BitTorrent peers here
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:6881", help_heading = "Torrents")]
    pub(crate) torrent_listen: SocketAddr,
    /// Where downloads go [default: DATA/downloads]
    #[arg(long, value_name = "DIR", help_heading = "Torrents")]
    pub(crate) download_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryArgs,
    #[command(flatten)]
    pub(crate) rates: RateArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,

    /// Publish over ZeroMQ here; without a topic all of hashblock, hashtx, rawblock, rawtx and sequence (repeatable)
    #[arg(long, value_name = "[TOPIC=]ADDR[/HIGH-WATER]", help_heading = "Others")]
    pub(crate) zmq: Vec<dunlin_api::zmq::Wanted>,
    /// Serve the dashboard, its REST interface and /metrics here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8380", help_heading = "Others")]
    pub(crate) api_listen: SocketAddr,

    /// Let the clock show this time, in seconds since 1970, and go on from there
    #[arg(long, value_name = "SECONDS", hide = true)]
    pub(crate) mock_time: Option<u32>,
    /// Stop when the process that started this one ends (the flock's peers do)
    #[arg(long, hide = true)]
    pub(crate) stop_with_parent: bool,
}

/// A script that is not empty.
fn script(text: &str) -> Result<ScriptBuf, String> {
    match ScriptBuf::from_hex(text) {
        Ok(script) if !script.is_empty() => Ok(script),
        _ => Err(format!("{text} is no script in hex")),
    }
}

/// A number of at most 64 hex digits.
fn work(text: &str) -> Result<Work, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let refuse = || format!("{text} is no number of at most 64 hex digits");
    if digits.is_empty() || digits.len() > 64 {
        return Err(refuse());
    }
    Work::from_unprefixed_hex(&format!("{digits:0>64}")).map_err(|_| refuse())
}
