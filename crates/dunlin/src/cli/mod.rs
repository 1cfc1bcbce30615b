//! The command line: each option is defined once, here; its help and its key in `dunlin.toml` come from here.

mod networks;
mod run;
mod torrent;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dunlin_chain::Network;
use dunlin_peer::{Host, NetAddr};

pub(crate) use networks::NetworkArgs;
pub(crate) use run::{Part, RunArgs};
pub(crate) use torrent::{
    CreateArgs, DiscoveryArgs, GetArgs, QueueArgs, RateArgs, SeedArgs, TorrentArgs, TorrentCommand, TorrentEncryption,
};

/// One peer of the open networks: Bitcoin and BitTorrent in one program.
///
/// `dunlin run` starts the peer; the other commands talk to it. `dunlin flock` shows the whole idea in a minute,
/// on this machine alone.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, max_term_width = 100, args_override_self = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the peer until Ctrl-C or `dunlin stop`
    Run(Box<RunArgs>),
    /// Show how the running peer is doing
    Status(ClientArgs),
    /// Ask the running peer to stop
    Stop(ClientArgs),
    /// Look at the block chain
    Chain(ChainArgs),
    /// Look at the transactions waiting for a block
    Mempool(MempoolArgs),
    /// See and choose the Bitcoin peers
    Peer(PeerArgs),
    /// Mine blocks now (regtest, and signets whose key you have)
    Mine(MineArgs),
    /// Share, fetch and manage files over BitTorrent
    Torrent(TorrentArgs),
    /// Call any method of the JSON-RPC interface (`dunlin rpc help` lists them)
    #[command(
        after_help = "Options stand before the method; everything after it goes to the method.\n\nExamples:\n  \
                            dunlin rpc getblockhash 0\n  dunlin rpc --network regtest getblockheader HASH true"
    )]
    Rpc(RpcArgs),
    /// Run a flock of whole peers on this machine and watch them mine, flood, share and survive
    #[command(
        after_help = "Examples:\n  dunlin flock            four peers; stays up with the dashboard until Ctrl-C\n  \
                            dunlin flock 8 --exit   eight peers; leaves when the story is told"
    )]
    Flock(FlockArgs),
}

/// How to find the running peer.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectArgs {
    /// The network of the peer to talk to [default: the one that runs in the data directory]
    #[arg(long, value_name = "NETWORK", global = true)]
    pub(crate) network: Option<Network>,
    /// Where the running peer keeps everything [default: ~/.dunlin]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The peer's RPC address [default: as the running peer left it in its data directory]
    #[arg(long, value_name = "ADDR", global = true)]
    pub(crate) rpc_connect: Option<SocketAddr>,
}

/// Options of every command that shows something the running peer knows.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) command: ChainCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChainCommand {
    /// Height, tip, work and sync state
    Info,
    /// One block
    Block {
        /// Height or hash
        block: String,
    },
    /// One block header
    Header {
        /// Height or hash
        block: String,
    },
    /// Check the stored blocks, undo records and coins; works with and without a running peer
    Verify {
        /// How many blocks from the tip down; 0 for all
        #[arg(default_value_t = 6)]
        blocks: u32,
        /// 0: blocks can be read; 1: and follow their own rules; 2: undo records can be read; 3: the coins are those of
        /// the blocks; 4: the blocks can be connected again
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=4))]
        level: u8,
        /// Repair what is damaged: blocks from peers, undo records and coins from blocks
        #[arg(long)]
        repair: bool,
    },
    /// Write hints for the first sync of others (`dunlin run --swiftsync FILE`); works with and without a running peer
    Hints {
        /// For which height, not above the tip's; of use to who assumes a later block to be valid
        #[arg(long, value_name = "N")]
        height: u32,
        /// The file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// One transaction from the mempool, or from a block that is named
    Tx {
        /// Transaction id
        txid: String,
        /// The hash of the block that holds it
        #[arg(long, value_name = "HASH")]
        block: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MempoolArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) command: MempoolCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MempoolCommand {
    /// Count, size and lowest fee rate
    Info,
    /// Every waiting transaction
    List,
    /// Hand in a signed transaction
    Submit {
        /// The transaction in hex
        hex: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    pub(crate) command: PeerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Who we are connected to
    List,
    /// Keep a connection to this peer
    Add {
        /// Address and port
        addr: NetAddr,
    },
    /// Refuse an address for a day
    Ban {
        /// Address
        addr: Host,
    },
    /// Allow an address again
    Unban {
        /// Address
        addr: Host,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MineArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// How many blocks
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) blocks: u32,
    /// Who gets the reward [default: an output that anyone can spend]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Option<String>,
    /// A file with the private keys, in wallet import format, that solve a signet's challenge; they stay in this command
    #[arg(long, value_name = "FILE")]
    pub(crate) signet_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RpcArgs {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// The method, such as getblockchaininfo
    pub(crate) method: String,
    /// Its arguments, as bitcoin-cli takes them: JSON, or else a plain string
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FlockArgs {
    /// How many peers
    #[arg(default_value_t = 4, value_parser = clap::value_parser!(u16).range(3..=32))]
    pub(crate) peers: u16,
    /// Leave when the story is told instead of staying up with the dashboard
    #[arg(long)]
    pub(crate) exit: bool,
    /// Where the peers' data directories go; kept afterwards [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
