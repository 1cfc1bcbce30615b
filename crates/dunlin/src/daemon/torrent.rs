//! The BitTorrent part: the torrent engine on its reactor, its disk and its trackers.
//!
//! The daemon and the commands that need no daemon (`dunlin torrent get`, `seed`) run this same part.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Context;
use dunlin_net::ReactorConfig;
use dunlin_torrent::command::{AddTorrent, Command, Config, DhtConfig, Event, Source};
use dunlin_torrent::ip_filter::IpFilter;
use dunlin_torrent::utp::Transport;
use dunlin_torrent::wire::{Codec, Encryption};
use dunlin_torrent::{InfoHash, Metainfo, Session, resume};
use dunlin_torrent::{dht, lsd};

use super::answers::Answers;
use super::torrent_jobs;
use crate::cli::{DiscoveryArgs, QueueArgs, RateArgs, RunArgs, TorrentEncryption};

/// How long saying goodbye to trackers and saving may take at the end.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How the part is to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where to listen for peers.
    pub(crate) listen: SocketAddr,
    /// Where downloads go unless told otherwise.
    pub(crate) download_dir: PathBuf,
    /// Where what was verified is remembered; `None` remembers nothing.
    pub(crate) resume_dir: Option<PathBuf>,
    /// How peers are found.
    pub(crate) discovery: DiscoveryArgs,
    /// How fast, and with whom.
    pub(crate) rates: RateArgs,
    /// How many at once, and for how long.
    pub(crate) queue: QueueArgs,
}

impl Options {
    /// The daemon's.
    pub(crate) fn daemon(args: &RunArgs, dir: &Path) -> Self {
        Self {
            listen: args.torrent_listen,
            download_dir: args
                .download_dir
                .clone()
                .unwrap_or_else(|| dir.join(super::data_dir::DOWNLOADS)),
            resume_dir: Some(dir.join("torrents")),
            discovery: args.discovery.clone(),
            rates: args.rates.clone(),
            queue: args.queue.clone(),
        }
    }
}

impl Options {
    /// The DHT's settings, when it is to be used. Who listens on loopback only reaches nobody out there, so the
    /// well-known nodes are not asked.
    fn dht(&self) -> Option<DhtConfig> {
        if self.discovery.no_dht {
            return None;
        }
        let routers = match &self.discovery.dht_node[..] {
            [] if self.listen.ip().is_loopback() => Vec::new(),
            [] => dht::ROUTERS.map(str::to_owned).to_vec(),
            named => named.to_vec(),
        };
        let saved = self
            .resume_dir
            .as_ref()
            .map(|dir| dht::Saved::load(&dir.join(dht::FILE_NAME)));
        Some(DhtConfig {
            routers,
            saved: saved.unwrap_or_default(),
            read_only: false,
        })
    }
}

impl Options {
    fn ip_filter(&self) -> anyhow::Result<IpFilter> {
        let Some(file) = &self.rates.ip_filter else {
            return Ok(IpFilter::default());
        };
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        // Descriptions are in any encoding.
        let text = String::from_utf8_lossy(&bytes);
        IpFilter::parse(&text).with_context(|| format!("{} is no list of addresses", file.display()))
    }
}

/// What the engine tells whoever looks on.
pub(crate) type Listener = Box<dyn FnMut(&Event) + Send>;

/// What the daemon's log says of torrents.
pub(super) fn log_event(event: &Event) {
    match event {
        Event::Added { info_hash, new: true } => tracing::info!("torrent {info_hash} added"),
        Event::MetadataReceived { info_hash, metainfo } => {
            tracing::info!("torrent {info_hash} is {}", metainfo.name);
        }
        Event::Completed { info_hash } => tracing::info!("torrent {info_hash} is complete"),
        Event::PieceFailed { info_hash, piece, from } => {
            tracing::warn!(
                "torrent {info_hash}: piece {piece} came with wrong bytes from {from:?}; it is fetched again"
            );
        }
        Event::PeerBanned {
            info_hash,
            addr,
            reason,
        } => {
            tracing::warn!("torrent {info_hash}: peer {addr} is dropped: {reason}");
        }
        Event::Error { info_hash, text } => tracing::error!("torrent {info_hash} cannot go on: {text}"),
        _ => {}
    }
}

/// What each torrent consists of, as far as known.
pub(super) type Metainfos = Mutex<HashMap<InfoHash, Arc<Metainfo>>>;

/// The map is valid after each of its operations, so a panic elsewhere does not spoil it.
pub(super) fn lock(metainfos: &Metainfos) -> MutexGuard<'_, HashMap<InfoHash, Arc<Metainfo>>> {
    metainfos.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running BitTorrent peer.
pub(crate) struct Torrent {
    pub(super) reactor: dunlin_net::Handle<Command>,
    pub(super) answers: Arc<Answers<Event>>,
    pub(super) metainfos: Arc<Metainfos>,
    pub(super) download_dir: PathBuf,
    stopped: Mutex<mpsc::Receiver<()>>,
}

impl Torrent {
    /// Starts the peer, without any torrent.
    ///
    /// # Errors
    /// When the address is taken.
    pub(crate) fn start(options: &Options, mut listener: Listener) -> anyhow::Result<Self> {
        if let Some(dir) = &options.resume_dir {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let answers = Arc::new(Answers::default());
        let metainfos = Arc::new(Metainfos::default());
        let (told, stopped) = mpsc::channel();
        let mut config = Config::new(rand::random());
        config.resume_dir.clone_from(&options.resume_dir);
        config.dht = options.dht();
        config.encryption = match options.discovery.torrent_encryption {
            TorrentEncryption::Prefer => Encryption::Prefer,
            TorrentEncryption::Require => Encryption::Require,
            TorrentEncryption::Off => Encryption::Off,
        };
        let (encryption, torrent_keys) = (config.encryption, config.torrent_keys.clone());
        let make_codec = move |_| Codec::encrypting(encryption, torrent_keys.clone(), rand::random());
        let bytes = |kib: Option<u64>| kib.filter(|kib| *kib > 0).map(|kib| kib.saturating_mul(1024));
        config.download_limit = bytes(options.rates.download_limit);
        config.upload_limit = bytes(options.rates.upload_limit);
        config.ip_filter = Arc::new(options.ip_filter()?);
        config.max_downloads = options.queue.max_downloads;
        config.max_seeds = options.queue.max_seeds;
        config.ratio_goal = options.queue.ratio_goal;
        let minutes = |minutes: u64| Duration::from_secs(minutes.saturating_mul(60));
        config.seed_time_goal = options.queue.seed_time_goal.map(minutes);
        config.utp = !options.discovery.no_utp;
        config.lsd = !options.discovery.no_lsd;
        config.pex = !options.discovery.no_pex;
        let on_event = {
            let (answers, metainfos) = (Arc::clone(&answers), Arc::clone(&metainfos));
            move |event: Event| {
                listener(&event);
                match event {
                    Event::Status { ticket, .. } | Event::Read { ticket, .. } => answers.give(ticket, event),
                    Event::MetadataReceived { info_hash, metainfo } => {
                        drop(lock(&metainfos).insert(info_hash, metainfo))
                    }
                    Event::Removed { info_hash, .. } => drop(lock(&metainfos).remove(&info_hash)),
                    Event::Stopped => drop(told.send(())),
                    _ => {}
                }
            }
        };
        let reactor = dunlin_net::spawn(
            ReactorConfig {
                max_inbound: config.limits.links,
                groups: if config.lsd { lsd::GROUPS.to_vec() } else { Vec::new() },
                ..ReactorConfig::new("torrent").listen(options.listen).with_datagrams()
            },
            {
                let (utp, make_codec) = (config.utp, make_codec.clone());
                move |now| Transport::new(Session::new(config, now), utp, rand::random(), make_codec)
            },
            make_codec,
            torrent_jobs::dispatcher()?,
            on_event,
        )
        .context("BitTorrent")?;
        let port = reactor.local_addrs().first().map(SocketAddr::port);
        reactor.command(Command::Listening { port });
        Ok(Self {
            reactor,
            answers,
            metainfos,
            download_dir: options.download_dir.clone(),
            stopped: Mutex::new(stopped),
        })
    }

    /// Goes on with the torrents of earlier runs, as the resume files in `dir` tell of them.
    pub(super) fn go_on(&self, dir: &Path) {
        let saved = resume::load_dir(dir).unwrap_or_else(|error| {
            tracing::warn!("cannot read {}: {error}", dir.display());
            Vec::new()
        });
        for (file, loaded) in saved {
            let add = loaded
                .map_err(anyhow::Error::from)
                .and_then(|resume| resumed(resume, None));
            match add {
                Ok(add) => self.add(add),
                Err(error) => tracing::warn!("{}: {error:#}; add the torrent again", file.display()),
            }
        }
    }

    /// Takes on a torrent.
    pub(crate) fn add(&self, add: AddTorrent) {
        if let Source::Metainfo(metainfo) = &add.source {
            lock(&self.metainfos).insert(metainfo.info_hash, Arc::clone(metainfo));
        }
        self.command(Command::Add(Box::new(add)));
    }

    /// Gives the engine a command; `false` when it has ended.
    pub(crate) fn command(&self, command: Command) -> bool {
        self.reactor.command(command)
    }

    /// Where it listens.
    pub(crate) fn listening(&self) -> Vec<SocketAddr> {
        self.reactor.local_addrs().to_vec()
    }

    /// Says goodbye to trackers and peers, saves what was verified, closes all links.
    pub(crate) fn stop(&self) {
        self.reactor.command(Command::Stop);
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if stopped.recv_timeout(STOP_WITHIN).is_err() {
            tracing::warn!(
                "a tracker or the disk did not answer in time; what is not saved is checked at the next start"
            );
        }
        self.reactor.shutdown();
    }
}

/// A torrent as an earlier run left it; from `source` where it is given, else from what was saved.
pub(crate) fn resumed(saved: resume::Resume, source: Option<Source>) -> anyhow::Result<AddTorrent> {
    let source = match (source, saved.metainfo()?) {
        (_, Some(metainfo)) => Source::Metainfo(Arc::new(metainfo)),
        (Some(source), None) => source,
        (None, None) => {
            let mut magnet = dunlin_torrent::Magnet::new(saved.info_hash);
            magnet.name = Some(saved.name.clone()).filter(|name| !name.is_empty());
            magnet.trackers = saved.trackers.iter().flatten().cloned().collect();
            Source::Magnet(magnet)
        }
    };
    let mut add = AddTorrent::new(source, saved.dir.clone());
    add.paused = saved.paused;
    add.resume = Some(Arc::new(saved));
    Ok(add)
}

/// What an earlier run remembered of one torrent.
pub(crate) fn remembered(resume_dir: &Path, info_hash: InfoHash) -> Option<resume::Resume> {
    resume::Resume::load(&resume_dir.join(resume::file_name(info_hash))).ok()
}
