//! The Bitcoin part: the relay machine on its reactor, the chain on its commit thread, and what the API asks of them.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bitcoin::BlockHash;
use dunlin_api::Stop;
use dunlin_chain::indexes::{IndexKind, Indexer, Indexes};
use dunlin_chain::swiftsync::{Hints, HintsError, SwiftSync};
use dunlin_chain::{Chain, ChainConfig, Network, Prune, Reindex, View};
use dunlin_mempool::Pool;
use dunlin_net::{Completer, OnionService, Proxies};
use dunlin_peer::{NetAddr, Now, Reach};
use dunlin_relay::{Command, Done, Engine, Event, Importing, Job, Relay, services};
use tokio::sync::watch;

use super::address_file;
use super::answers::Answers;
use super::networks::Networks;
use super::{data_dir, mempool_file, peer_files};
use crate::cli::RunArgs;

/// Threads that read blocks for peers.
const READ_THREADS: usize = 2;
/// Threads that parse and hash blocks as they come in, at most.
const MAX_PARSE_THREADS: usize = 4;
/// Blocks of about so many bytes go to the chain together.
const BATCH_BYTES: usize = 8 << 20;
/// Threads that wait for DNS seeds.
const RESOLVE_THREADS: usize = 3;
/// Inbound links beyond the limit that the machine may look at before it decides whom to keep.
const AT_THE_DOOR: usize = 16;
/// How often the log tells how far the sync has come.
const TELL_SYNC: Duration = Duration::from_secs(5);
/// How often known addresses, the memory pool and the fee estimates are saved.
const SAVE_ADDRESSES: Duration = Duration::from_secs(15 * 60);

/// The running Bitcoin peer.
pub(crate) struct Bitcoin {
    pub(super) reactor: dunlin_net::Handle<Command>,
    pub(super) view: View,
    pub(super) pool: Arc<RwLock<Pool>>,
    pub(super) answers: Arc<Answers<Event>>,
    pub(super) tip: watch::Receiver<BlockHash>,
    pub(super) dir: PathBuf,
    pub(super) config: dunlin_relay::Config,
    pub(super) indexes: Indexes,
    pub(super) proxies: Proxies,
    onion: Mutex<Option<OnionService>>,
    fault: Fault,
    commit: Mutex<Option<JoinHandle<()>>>,
    pool_loader: Mutex<Option<JoinHandle<()>>>,
    indexer: Mutex<Option<JoinHandle<()>>>,
}

/// What `--fast-prune` means: from which height on blocks are pruned, and the bytes of a block file; both are Core's.
const FAST_PRUNE_AFTER: u32 = 100;
const FAST_PRUNE_FILE: u64 = 64 << 10;

type Work = (Job, Completer<Done>);

/// Why the node had to stop, when it was not asked to: the first reason counts.
type Fault = Arc<OnceLock<String>>;

impl Bitcoin {
    /// Opens the chain and starts the peer.
    ///
    /// # Errors
    /// When the chain cannot be opened or the address is taken.
    pub(super) fn start(args: &RunArgs, dir: &Path, stop: &Stop) -> anyhow::Result<Self> {
        ensure!(
            !args.peer_block_filters || args.index.contains(&IndexKind::Filter),
            "--peer-block-filters needs --index filter"
        );
        let mut params = data_dir::params_of_run(dir, args.network, args.signet_challenge.as_ref())?;
        if let Some(work) = args.minimum_chain_work {
            params.minimum_chain_work = work;
        }
        for rule in &args.test_rule {
            ensure!(params.set_test_rule(*rule), "--test-rule is for regtest only");
        }
        let mut config = ChainConfig {
            cache_bytes: usize::try_from(args.db_cache << 20)?,
            prune: args.prune,
            reindex: match (args.reindex, args.reindex_chainstate) {
                (true, _) => Some(Reindex::Everything),
                (false, true) => Some(Reindex::Coins),
                (false, false) => None,
            },
            catch_up: false,
            ..ChainConfig::default()
        };
        if args.fast_prune {
            ensure!(args.network == Network::Regtest, "--fast-prune is for regtest only");
            params.prune_after_height = FAST_PRUNE_AFTER;
            config.block_file_bytes = FAST_PRUNE_FILE;
        }
        if let Some(path) = &args.swiftsync {
            config.swiftsync = Some(swiftsync(path, args)?);
        }
        if let Some(threads) = args.script_threads {
            config.script_threads = threads;
        }
        if let Some(assume_valid) = &args.assume_valid {
            config.assume_valid = assume_valid_option(assume_valid)?;
        }
        let chain = Chain::open_dir(params.clone(), dir, config)
            .with_context(|| format!("cannot open the chain in {}", dir.display()))?;
        let import = Importing::new(&chain, &args.load_block).context("--load-block")?;
        let view = chain.view();
        let (indexes, indexer) = start_indexes(&args.index, dir, view.clone())?;
        let mut pool = Pool::new(dunlin_mempool::Config::default(), view.clone());
        pool.set_loaded(false);
        mempool_file::load_estimates(dir, &mut pool);
        let pool = Arc::new(RwLock::new(pool));
        let (caught_up, caught_up_receiver) = channel::<()>();
        let pool_loader = {
            let (dir, pool, stop) = (dir.to_owned(), Arc::clone(&pool), stop.clone());
            std::thread::Builder::new()
                .name("mempool-load".to_owned())
                .spawn(move || {
                    // Before the stored blocks are connected, what spends from them would be refused.
                    if caught_up_receiver.recv().is_ok() {
                        mempool_file::load(&dir, &pool, &stop);
                    }
                })
                .context("cannot start a thread")?
        };
        let listen = args
            .listen
            .unwrap_or_else(|| default_listen(args.network, params.default_port));

        let (tip_sender, tip) = watch::channel(view.tip().hash);
        let answers = Arc::new(Answers::default());
        let (work, jobs) = channel::<Work>();
        let mut engine = Engine::new(chain, Arc::clone(&pool));
        engine.import = import;
        let stop_on_failure = stop.clone();
        let fault = Fault::default();
        let commit_fault = Arc::clone(&fault);
        let commit = std::thread::Builder::new()
            .name("chain".to_owned())
            .spawn(move || commit(engine, &jobs, caught_up, &stop_on_failure, &commit_fault))
            .context("cannot start the chain's thread")?;

        let regtest = args.network == Network::Regtest;
        let reach = if regtest { Reach::Anywhere } else { Reach::Public };
        // A key of its own: the book keeps it in its file, and the machine's seed stays in memory.
        let mut addresses = address_file::load(dir, rand::random(), reach);
        let networks = Networks::new(&args.networks, dir)?;
        addresses.set_as_map(networks.as_map.clone());
        let onion_listen = Networks::onion_listen(&args.networks);
        let mut config = dunlin_relay::Config {
            seed: rand::random(),
            anchors: peer_files::take_anchors(dir),
            user_agent: user_agent(&args.ua_comment),
            dns_seeds: match args.no_dns_seed
                || args.no_dial
                || args.signet_challenge.is_some()
                || !networks.looks_up_names()
            {
                true => Vec::new(),
                false => dunlin_relay::dns_seeds(args.network)
                    .iter()
                    .map(|&name| name.to_owned())
                    .collect(),
            },
            fixed_seeds: match args.networks.no_fixed_seeds || args.no_dial || args.signet_challenge.is_some() {
                true => Vec::new(),
                false => dunlin_relay::fixed_seeds(args.network),
            },
            connect_only: args.connect.clone(),
            add_peers: args.add_peer.clone(),
            listen_port: Some(listen.port())
                .filter(|port| *port != 0)
                .filter(|_| !args.no_listen || onion_listen.is_some() || networks.i2p.is_some()),
            reachable: networks.reachable,
            private_broadcast: networks.private_broadcast,
            max_inbound: args.max_inbound,
            block_filters: args.peer_block_filters.then(|| indexes.clone()),
            blocks_only: args.blocks_only,
            immediate: regtest,
            ..dunlin_relay::Config::default()
        };
        if args.no_dial {
            config.max_outbound = 0;
            config.max_block_relay = 0;
            config.anchors.clear();
        }
        if args.prune != Prune::Off {
            config.services &= !services::NETWORK;
        }
        if !args.no_v2transport {
            config.services |= services::P2P_V2;
        }
        let (offered, told) = (config.services, config.clone());
        let machine = {
            let (view, pool) = (view.clone(), Arc::clone(&pool));
            let bans = peer_files::load_bans(dir);
            move |now: Now| {
                let mut relay = Relay::new(config, view, pool, addresses, now);
                bans.into_iter().for_each(|ban| relay.bans_mut().add(ban));
                relay
            }
        };
        let magic = params.magic;
        let reactor = dunlin_net::spawn(
            dunlin_net::ReactorConfig {
                // The machine keeps the limit and chooses whom to drop; it needs the newcomers at the door for that.
                max_inbound: args.max_inbound.saturating_add(AT_THE_DOOR),
                listen: (Some(listen).filter(|_| !args.no_listen).into_iter())
                    .chain(onion_listen)
                    .collect(),
                proxies: networks.proxies,
                i2p: networks.i2p.clone(),
                ..dunlin_net::ReactorConfig::new("bitcoin")
            },
            machine,
            move |_| {
                if offered & services::P2P_V2 == 0 {
                    dunlin_relay::Codec::new(magic)
                } else {
                    dunlin_relay::Codec::encrypting(magic, rand::random())
                }
            },
            dispatcher(work, view.clone(), indexes.clone())?,
            on_event(
                Arc::clone(&answers),
                view.clone(),
                tip_sender,
                stop.clone(),
                Arc::clone(&fault),
            ),
        )
        .context("cannot listen for Bitcoin peers; choose another address with --listen")?;
        let onion_bind = onion_listen.and_then(|_| reactor.local_addrs().last().copied());
        if let Some(bind) = onion_bind {
            reactor.command(Command::OnionBind(bind));
        }
        let proxies = networks.proxies;
        let onion = networks.start(&args.networks, dir, params.default_port, onion_bind, reactor.clone())?;
        reactor.command(Command::CatchUp);
        Ok(Self {
            reactor,
            view,
            pool,
            answers,
            tip,
            dir: dir.to_owned(),
            config: told,
            indexes,
            proxies,
            onion: Mutex::new(onion),
            fault,
            commit: Mutex::new(Some(commit)),
            pool_loader: Mutex::new(Some(pool_loader)),
            indexer: Mutex::new(indexer),
        })
    }

    /// Saves the known addresses and the memory pool now and then, until the process stops.
    pub(super) async fn save_addresses(&self) {
        loop {
            tokio::time::sleep(SAVE_ADDRESSES).await;
            self.save_addresses_now().await;
            let (dir, pool) = (self.dir.clone(), Arc::clone(&self.pool));
            let saved = tokio::task::spawn_blocking(move || mempool_file::save(&dir, &pool)).await;
            if let Ok(Err(error)) = saved {
                tracing::warn!("{error:#}");
            }
        }
    }

    pub(super) async fn save_addresses_now(&self) {
        let answer = self
            .answers
            .ask(|ticket| self.reactor.command(Command::Addresses { ticket }))
            .await;
        if let Ok(Event::Addresses { book, anchors, .. }) = answer {
            let saved =
                address_file::save(&self.dir, &book).and_then(|()| peer_files::save_anchors(&self.dir, &anchors));
            if let Err(error) = saved {
                tracing::warn!("cannot save the known addresses: {error:#}");
            }
        }
    }

    /// Closes all links, then the chain, and saves the memory pool.
    ///
    /// # Errors
    /// When the node did not stop because it was asked to, or could not save everything.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        drop(self.onion.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.reactor.shutdown();
        // The reactor's thread owned the only sender of work, so the commit thread ends once it has done all.
        let commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.indexes.stop(&self.view);
        let indexer = self.indexer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if indexer.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the indexes' thread failed; they go on from their last batch at the next start");
        }
        if commit.is_some_and(|thread| thread.join().is_err()) {
            bail!("the chain's thread failed; the next start goes on from its last flush");
        }
        let pool_loader = self.pool_loader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let saved = match pool_loader.is_none_or(|thread| thread.join().is_ok()) {
            true => mempool_file::save(&self.dir, &self.pool),
            false => Ok(()),
        };
        // What stopped the node is the news, not what then could not be saved either.
        match self.fault.get() {
            None => saved,
            Some(fault) => bail!("{fault}"),
        }
    }
}

/// What we call ourselves (BIP 14), with comments.
pub(super) fn user_agent(comments: &[String]) -> String {
    let name = dunlin_relay::Config::default().user_agent;
    match comments {
        [] => name,
        comments => format!("{}({})/", name.trim_end_matches('/'), comments.join("; ")),
    }
}

/// Opens the indexes that are on and starts the thread that feeds them, if there is any.
fn start_indexes(kinds: &[IndexKind], dir: &Path, view: View) -> anyhow::Result<(Indexes, Option<JoinHandle<()>>)> {
    let dir = dir.join("indexes");
    let mut tables = Vec::new();
    for kind in IndexKind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
        let table = kind
            .open_dir(&dir, view.params())
            .with_context(|| format!("cannot open the index `{kind}` in {}", dir.display()))?;
        tables.push((kind, table));
    }
    if tables.is_empty() {
        return Ok((Indexes::default(), None));
    }
    let indexer = Indexer::open(view, tables).with_context(|| {
        format!(
            "an index in {} cannot be used; delete its folder to build it again",
            dir.display()
        )
    })?;
    let indexes = indexer.indexes();
    let thread = std::thread::Builder::new()
        .name("indexes".to_owned())
        .spawn(move || indexer.run())
        .context("cannot start the indexes' thread")?;
    Ok((indexes, Some(thread)))
}

/// The hints for a first sync.
fn swiftsync(path: &Path, args: &RunArgs) -> anyhow::Result<SwiftSync> {
    let every_script = args.assume_valid.as_deref() == Some("none");
    if !args.index.is_empty() && !every_script {
        bail!(
            "--swiftsync leaves no undo records, which indexes are made from, unless every script is checked: leave \
             out --index, or --swiftsync, or add --assume-valid none"
        );
    }
    let hints = std::fs::File::open(path)
        .map_err(HintsError::from)
        .and_then(Hints::read)
        .with_context(|| format!("--swiftsync: the hints in {}", path.display()))?;
    Ok(SwiftSync {
        hints: Arc::new(hints),
        secret: rand::random(),
    })
}

fn assume_valid_option(text: &str) -> anyhow::Result<dunlin_chain::AssumeValid> {
    if text == "none" {
        return Ok(dunlin_chain::AssumeValid::Never);
    }
    let hash = text
        .parse()
        .with_context(|| format!("--assume-valid takes a block hash or `none`, not `{text}`"))?;
    Ok(dunlin_chain::AssumeValid::Block(hash))
}

/// All addresses at the network's port; only this machine on regtest, whose blocks anyone can make.
fn default_listen(network: Network, port: u16) -> SocketAddr {
    let ip = if network == Network::Regtest {
        Ipv4Addr::LOCALHOST
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    SocketAddr::from((ip, port))
}

/// Sends jobs where they belong: reads and parsing to pools, all else in order to the commit thread.
fn dispatcher(
    work: Sender<Work>,
    view: View,
    indexes: Indexes,
) -> anyhow::Result<impl FnMut(Job, Completer<Done>) + Send> {
    let readers = dunlin_net::Pool::new("block-read", READ_THREADS).context("cannot start threads")?;
    let resolver = dunlin_net::Pool::new("resolve", RESOLVE_THREADS).context("cannot start threads")?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parsers =
        dunlin_net::Pool::new("block-parse", threads.min(MAX_PARSE_THREADS)).context("cannot start threads")?;
    Ok(move |job, completer: Completer<Done>| match job {
        Job::ParseBlock { link, raw } => {
            let view = view.clone();
            parsers.spawn(move || {
                let done = dunlin_relay::parse_block(view.params(), link, raw);
                let block = match &done {
                    Done::BlockParsed { result: Ok(block), .. } if block.check(view.params()).is_ok() => {
                        Some(Arc::clone(block))
                    }
                    _ => None,
                };
                completer.complete(done);
                if let Some(block) = block {
                    view.will_connect(&block);
                }
            });
        }
        Job::Resolve { name, port } => resolver.spawn(move || {
            // A seed that cannot be resolved is one without addresses.
            let addrs = (name.as_str(), port).to_socket_addrs();
            let addrs = addrs
                .map(|addrs| addrs.map(NetAddr::from).collect())
                .unwrap_or_default();
            completer.complete(Done::Resolved { addrs });
        }),
        Job::ReadBlock { .. } => {
            let (view, work) = (view.clone(), work.clone());
            readers.spawn(move || match dunlin_relay::read_block(&view, &job) {
                Some(done @ Done::BlockRead { result: Ok(_), .. }) => completer.complete(done),
                // A damaged record: the writer of the chain marks it, so that the block is fetched again.
                _ => drop(work.send((job, completer))),
            });
        }
        Job::ReadSpent { .. } => {
            let view = view.clone();
            readers.spawn(move || {
                completer.complete(dunlin_relay::read_spent(&view, &job).unwrap_or(Done::Nothing));
            });
        }
        Job::ReadFilters { .. } => {
            let (view, indexes) = (view.clone(), indexes.clone());
            readers.spawn(move || {
                completer.complete(dunlin_relay::read_filters(&view, &indexes, &job).unwrap_or(Done::Nothing));
            });
        }
        // The commit thread is gone only when it failed, and then the process is stopping.
        job => drop(work.send((job, completer))),
    })
}

/// The size of the block that a job gives to the chain.
fn block_bytes(job: &Job) -> Option<usize> {
    match job {
        Job::AcceptBlock { block, .. } => Some(block.raw.len()),
        _ => None,
    }
}

/// Whether no stored block is left to be connected after a job.
fn is_caught_up(done: &Done) -> bool {
    match done {
        Done::CaughtUp { result, more } => !more && matches!(result, Ok(outcome) if !outcome.more),
        Done::Advanced { result } => matches!(result, Ok(outcome) if !outcome.more),
        _ => false,
    }
}

/// The one writer of the chain. Says once when the stored blocks are connected.
fn commit(mut engine: Engine, jobs: &Receiver<Work>, caught_up: Sender<()>, stop: &Stop, fault: &Fault) {
    // However this thread ends, a node without a chain must not pretend to be one.
    struct StopOnExit<'a>(&'a Stop);
    impl Drop for StopOnExit<'_> {
        fn drop(&mut self) {
            self.0.trigger();
        }
    }
    let _guard = StopOnExit(stop);
    let mut caught_up = Some(caught_up);
    let mut held = None;
    while let Some((job, completer)) = held.take().or_else(|| jobs.recv().ok()) {
        // Blocks that queue up behind this one go to the chain with it.
        let (mut batch, mut completers, mut bytes) = (Vec::new(), vec![completer], block_bytes(&job));
        batch.push(job);
        while bytes.is_some_and(|bytes| bytes < BATCH_BYTES)
            && let Ok((job, completer)) = jobs.try_recv()
        {
            match block_bytes(&job) {
                Some(more) => bytes = bytes.map(|bytes| bytes.saturating_add(more)),
                None => {
                    held = Some((job, completer));
                    break;
                }
            }
            batch.push(job);
            completers.push(completer);
        }
        for (done, completer) in engine.run_all(super::now(), batch).into_iter().zip(completers) {
            if is_caught_up(&done)
                && let Some(caught_up) = caught_up.take()
            {
                // Whoever waits for it is gone only when the process stops.
                let _ = caught_up.send(());
            }
            completer.complete(done);
        }
    }
    if let Err(error) = engine.chain.close() {
        let what = format!("the last flush failed: {error}; the next start goes on from the one before");
        tracing::error!("{what}");
        let _ = fault.set(what);
    }
}

fn on_event(
    answers: Arc<Answers<Event>>,
    view: View,
    tip: watch::Sender<BlockHash>,
    stop: Stop,
    fault: Fault,
) -> impl FnMut(Event) + Send {
    let mut told: Option<Instant> = None;
    move |event| match event {
        Event::BlockSubmitted { ticket, .. }
        | Event::TxSubmitted { ticket, .. }
        | Event::Operated { ticket, .. }
        | Event::BlockAsked { ticket, .. }
        | Event::Peers { ticket, .. }
        | Event::Added { ticket, .. }
        | Event::Bans { ticket, .. }
        | Event::OwnAddresses { ticket, .. }
        | Event::Addresses { ticket, .. } => answers.give(ticket, event),
        Event::TipChanged {
            hash,
            height,
            disconnected,
            connected,
            ..
        } => {
            let best = view.best_header().height;
            if disconnected > 0 {
                tracing::info!("reorganised: {disconnected} blocks left, {connected} joined; height {height}, {hash}");
            } else if height >= best {
                tracing::info!("height {height}, {hash}");
            } else if told.is_none_or(|told| told.elapsed() >= TELL_SYNC) {
                tracing::info!(
                    "syncing: height {height} of {best} ({} %)",
                    u64::from(height) * 100 / u64::from(best)
                );
                told = Some(Instant::now());
            }
            tip.send_replace(hash);
        }
        Event::Misbehaved {
            link,
            addr,
            reason,
            discouraged,
        } => {
            let and = if discouraged { ", and refused for a day" } else { "" };
            tracing::warn!("peer {link} at {addr} is disconnected{and}: {reason}");
        }
        Event::PeerReady {
            link,
            addr,
            direction,
            user_agent,
        } => {
            tracing::info!("peer {link}: {direction} {addr} {user_agent}");
        }
        Event::PeerGone { link, addr, cause } => tracing::info!("peer {link} at {addr} is gone: {cause}"),
        Event::TxAccepted { txid, .. } => tracing::debug!("transaction {txid}"),
        Event::TxRejected { txid, reason, from } => tracing::debug!("transaction {txid} of peer {from}: {reason}"),
        Event::SnapshotRefuted { reason } => {
            if fault.set(reason.clone()).is_ok() {
                tracing::error!("{reason}");
            }
            stop.trigger();
        }
        Event::StoreFailed { error } => {
            // The first failure says it; those that follow from it would only repeat it.
            if fault.set(format!("the chain cannot be written: {error}")).is_ok() {
                tracing::error!("the chain cannot be written: {error}; stopping");
            }
            stop.trigger();
        }
    }
}
