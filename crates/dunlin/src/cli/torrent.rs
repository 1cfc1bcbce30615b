//! The options of `dunlin torrent`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ClientArgs;

/// Which links to BitTorrent peers are encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TorrentEncryption {
    /// Dial encrypted, then in plain; accept both
    #[default]
    Prefer,
    /// Neither dial nor accept plain links
    Require,
    /// None
    Off,
}

/// How peers are found beside trackers, and how they are spoken with.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DiscoveryArgs {
    /// Do not use the DHT
    #[arg(long, help_heading = "Torrents")]
    pub(crate) no_dht: bool,
    /// Join the DHT through this node instead of the well-known ones (repeatable)
    #[arg(long, value_name = "HOST:PORT", help_heading = "Torrents")]
    pub(crate) dht_node: Vec<String>,
    /// Do not use peer exchange
    #[arg(long, help_heading = "Torrents")]
    pub(crate) no_pex: bool,
    /// Do not look for peers in the house (local service discovery)
    #[arg(long, help_heading = "Torrents")]
    pub(crate) no_lsd: bool,
    /// Do not use uTP
    #[arg(long, help_heading = "Torrents")]
    pub(crate) no_utp: bool,
    /// Encrypt the links to peers
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "prefer",
        help_heading = "Torrents"
    )]
    pub(crate) torrent_encryption: TorrentEncryption,
}

/// How fast torrents may be, and with whom.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RateArgs {
    /// Fetch at most so much from BitTorrent peers, in KiB a second
    #[arg(long, value_name = "KIB", help_heading = "Torrents")]
    pub(crate) download_limit: Option<u64>,
    /// Give at most so much to BitTorrent peers, in KiB a second
    #[arg(long, value_name = "KIB", help_heading = "Torrents")]
    pub(crate) upload_limit: Option<u64>,
    /// Exchange nothing with the addresses in this file (ipfilter.dat, P2P or CIDR lines)
    #[arg(long, value_name = "FILE", help_heading = "Torrents")]
    pub(crate) ip_filter: Option<PathBuf>,
}

/// How many torrents are active, and for how long.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct QueueArgs {
    /// Torrents that download at once; the others wait [default: all]
    #[arg(long, value_name = "N", help_heading = "Torrents")]
    pub(crate) max_downloads: Option<usize>,
    /// Torrents that only share at once; the others wait [default: all]
    #[arg(long, value_name = "N", help_heading = "Torrents")]
    pub(crate) max_seeds: Option<usize>,
    /// Pause a torrent that has given so many times its own size
    #[arg(long, value_name = "RATIO", value_parser = ratio, help_heading = "Torrents")]
    pub(crate) ratio_goal: Option<u64>,
    /// Pause a torrent that has been shared for so many minutes
    #[arg(long, value_name = "MINUTES", help_heading = "Torrents")]
    pub(crate) seed_time_goal: Option<u64>,
    /// Add the .torrent and .magnet files that are put into this folder
    #[arg(long, value_name = "DIR", help_heading = "Torrents")]
    pub(crate) watch_dir: Option<PathBuf>,
}

/// A ratio such as `1.5`, in thousandths.
fn ratio(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1e6).contains(&ratio) => Ok((ratio * 1000.0).round() as u64),
        _ => Err("takes a number such as 1.5".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct TorrentArgs {
    #[command(subcommand)]
    pub(crate) command: TorrentCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TorrentCommand {
    /// Fetch a torrent here and now, without a daemon
    #[command(after_help = "Examples:\n  dunlin torrent get debian.torrent\n  \
                            dunlin torrent get 'magnet:?xt=urn:btih:...' --output ~/Downloads --keep-seeding\n\
                            A download that was interrupted goes on where it stopped.")]
    Get(GetArgs),
    /// Share a file or folder here and now, without a daemon
    Seed(SeedArgs),
    /// Make a .torrent file
    Create(CreateArgs),
    /// Add a torrent to the running peer
    Add {
        #[command(flatten)]
        client: ClientArgs,
        /// A .torrent file, a magnet link or an http(s) address of a .torrent
        source: String,
        /// Where its files go [default: the peer's download directory]
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// A peer to ask (repeatable)
        #[arg(long, value_name = "ADDR")]
        peer: Vec<SocketAddr>,
    },
    /// The running peer's torrents
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// One torrent of the running peer, with its peers
    Info {
        #[command(flatten)]
        client: ClientArgs,
        /// Info hash
        info_hash: String,
    },
    /// Play a torrent while it downloads: prints addresses for any player
    #[command(
        after_help = "Examples:\n  mpv $(dunlin torrent stream 'magnet:?xt=urn:btih:...')\n  \
                            dunlin torrent stream c12fe1c06bba254a9dc9f519b335aa7c1367a88a --file 3"
    )]
    Stream {
        #[command(flatten)]
        client: ClientArgs,
        /// Info hash of a torrent of the running peer, or a .torrent file, magnet link or http(s) address to add
        source: String,
        /// Only this file, by its index or the end of its path [default: a playlist, or the only file]
        #[arg(long, value_name = "FILE")]
        file: Option<String>,
        /// A peer to ask (repeatable)
        #[arg(long, value_name = "ADDR")]
        peer: Vec<SocketAddr>,
    },
    /// Limit how fast the running peer's torrents are, all together or one of them
    Limit {
        #[command(flatten)]
        client: ClientArgs,
        /// Only this torrent: its info hash
        info_hash: Option<String>,
        /// From peers, in KiB a second [default: no limit]
        #[arg(long, value_name = "KIB")]
        download: Option<u64>,
        /// To peers, in KiB a second [default: no limit]
        #[arg(long, value_name = "KIB")]
        upload: Option<u64>,
    },
    /// The files of a torrent of the running peer, and how much each is wanted
    Files {
        #[command(flatten)]
        client: ClientArgs,
        /// Info hash
        info_hash: String,
        /// Do not fetch this file, by its index (repeatable)
        #[arg(long, value_name = "INDEX")]
        skip: Vec<usize>,
        /// Fetch this file as the others (repeatable)
        #[arg(long, value_name = "INDEX")]
        normal: Vec<usize>,
        /// Fetch this file before the others (repeatable)
        #[arg(long, value_name = "INDEX")]
        high: Vec<usize>,
    },
    /// Hash all files of a torrent of the running peer again
    Recheck {
        #[command(flatten)]
        client: ClientArgs,
        /// Info hash
        info_hash: String,
    },
    /// Pause a torrent of the running peer
    Pause {
        #[command(flatten)]
        client: ClientArgs,
        /// Info hash
        info_hash: String,
    },
    /// Let a paused torrent go on
    Resume {
        #[command(flatten)]
        client: ClientArgs,
        /// Info hash
        info_hash: String,
    },
    /// Take a torrent out of the running peer; its files stay
    Remove {
        #[command(flatten)]
        client: ClientArgs,
        /// Info hash
        info_hash: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// A .torrent file, a magnet link or an http(s) address of a .torrent
    pub(crate) source: String,
    /// Where the files go
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
    /// A peer to ask (repeatable)
    #[arg(long, value_name = "ADDR")]
    pub(crate) peer: Vec<SocketAddr>,
    /// Listen for peers here [default: a free port on all addresses]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Go on sharing when all is there, until Ctrl-C
    #[arg(long)]
    pub(crate) keep_seeding: bool,
    /// Give up when nothing at all has arrived for this long, in seconds; 0 waits for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) stall_timeout: u64,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryArgs,
    #[command(flatten)]
    pub(crate) rates: RateArgs,
    /// Print one line of JSON at the end instead of a progress bar
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// A file or folder to share, or a .torrent file whose data is in --data
    pub(crate) path: PathBuf,
    /// The folder that holds a .torrent's data [default: the folder of the .torrent]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Listen for peers here [default: a free port on all addresses]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A tracker to announce to (repeatable)
    #[arg(long, value_name = "URL")]
    pub(crate) tracker: Vec<String>,
    /// A peer to offer it to (repeatable)
    #[arg(long, value_name = "ADDR")]
    pub(crate) peer: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryArgs,
    #[command(flatten)]
    pub(crate) rates: RateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// A file or folder
    pub(crate) path: PathBuf,
    /// Where to write the .torrent
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The classic format, which every client reads; the default
    #[arg(long, group = "format")]
    pub(crate) v1: bool,
    /// Version 2 (BEP 52): hash trees of SHA-256 for each file
    #[arg(long, group = "format")]
    pub(crate) v2: bool,
    /// Both at once, for one swarm of old and new clients
    #[arg(long, group = "format")]
    pub(crate) hybrid: bool,
    /// Bytes for each piece, a power of two from 16384 [default: chosen by size]
    #[arg(long, value_name = "N")]
    pub(crate) piece_length: Option<u32>,
    /// A tracker (repeatable; each is a tier of its own)
    #[arg(long, value_name = "URL")]
    pub(crate) tracker: Vec<String>,
    /// Only peers from its trackers (BEP 27)
    #[arg(long)]
    pub(crate) private: bool,
}
