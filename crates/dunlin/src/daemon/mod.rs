//! The daemon: puts the parts together, keeps them running, stops them in order.

mod address_file;
mod answers;
mod bitcoin;
mod bitcoin_backend;
pub(crate) mod data_dir;
mod mempool_file;
mod networks;
mod notify;
mod peer_files;
pub(crate) mod signals;
pub(crate) mod torrent;
pub(crate) mod torrent_backend;
mod torrent_jobs;
mod watch;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow};
use dunlin_api::dashboard::Token;
use dunlin_api::rpc::{Auth, Cookie, Logging};
use dunlin_api::{Node, Stop, dashboard, rpc, zmq};
use dunlin_chain::Network;
use dunlin_net::Clock;
use dunlin_peer::Now;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};

use crate::cli::{Part, RunArgs};
use crate::config;
use crate::core_mode::PidFile;
use bitcoin::Bitcoin;
use data_dir::{API_ADDRESS_FILE, API_TOKEN_FILE, COOKIE_FILE, RPC_ADDRESS_FILE};
use torrent::Torrent;

/// Time for work outside of the reactors: the commit thread, the trackers.
pub(crate) fn now() -> Now {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::start);
    CLOCK.now()
}

/// Logs go to standard error; `RUST_LOG` chooses more or less of them.
pub(crate) fn start_log(default: &str) -> Logging {
    let log = tracing_subscriber::fmt()
        .with_env_filter(log_filter(default, &BTreeSet::new()))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let (default, handle) = (default.to_owned(), log.reload_handle());
    log.init();
    // A log that is gone needs no other filter.
    Logging::new(move |modules| drop(handle.reload(log_filter(&default, modules))))
}

/// What `RUST_LOG` says, or `default`; and more of some modules.
fn log_filter(default: &str, modules: &BTreeSet<&str>) -> EnvFilter {
    let usual = || EnvFilter::new(format!("{default},fjall=warn,lsm_tree=warn"));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
    let more = modules
        .iter()
        .filter_map(|module| format!("{module}=debug").parse().ok());
    more.fold(filter, EnvFilter::add_directive)
}

/// What a run in the place of `bitcoind` keeps in files, as Core does.
#[derive(Debug)]
pub(crate) struct CoreFiles {
    /// The login of this run, if one is to be made.
    pub(crate) cookie: Option<PathBuf>,
    /// Another login: user and password.
    pub(crate) password: Option<(String, String)>,
    /// The process id, while RPC answers.
    pub(crate) pid: Option<PathBuf>,
    /// The log.
    pub(crate) log: Option<PathBuf>,
    /// Categories that log more.
    pub(crate) debug: Vec<String>,
    /// Whether the log goes to standard output, too.
    pub(crate) console: bool,
}

/// [`start_log`] for a run in the place of `bitcoind`.
fn start_core_log(files: &CoreFiles) -> anyhow::Result<Logging> {
    let file = match &files.log {
        None => None,
        Some(path) => {
            let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
            Some(open.with_context(|| format!("Could not open debug log file {}", path.display()))?)
        }
    };
    let writer = match (file, files.console) {
        (Some(file), true) => BoxMakeWriter::new(std::io::stdout.and(file)),
        (Some(file), false) => BoxMakeWriter::new(file),
        (None, true) => BoxMakeWriter::new(std::io::stdout),
        (None, false) => BoxMakeWriter::new(std::io::sink),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(log_filter("info", &BTreeSet::new()))
        .with_target(false)
        .with_ansi(false)
        .with_writer(writer)
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    let logging = Logging::new(move |modules| drop(handle.reload(log_filter("info", modules))));
    for category in &files.debug {
        logging.switch(category, true);
    }
    Ok(logging)
}

/// `dunlin run`, or `bitcoind` with its files.
pub(crate) fn run(args: RunArgs, core: Option<&CoreFiles>) -> anyhow::Result<()> {
    let mut logging = core.is_none().then(|| start_log("info"));
    if let Some(time) = args.mock_time {
        rpc::set_mock_time(time);
    }
    if args.stop_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    if let Err(error) = dunlin_net::raise_file_limit() {
        tracing::warn!("cannot raise the limit on open files: {error}; many peers may be turned away");
    }
    let data_dir = args.data_dir.clone().unwrap_or_else(config::default_data_dir);
    let dir = data_dir::prepare(&data_dir, args.network)?;
    let lock = dunlin_store::Lock::acquire(&dir)?;
    if let Some(files) = core {
        logging = Some(start_core_log(files)?);
    }
    // A run that was killed left its cookie behind; nobody should take it for ours.
    let cookie = dir.join(COOKIE_FILE);
    let _ = std::fs::remove_file(core.and_then(|files| files.cookie.as_ref()).unwrap_or(&cookie));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(&args, &dir, core, logging.unwrap_or_default()));
    if let (Some(_), Err(error)) = (core, &result) {
        tracing::error!("{error:#}");
    }
    drop(lock);
    result
}

async fn serve(args: &RunArgs, dir: &Path, core: Option<&CoreFiles>, logging: Logging) -> anyhow::Result<()> {
    let started = Instant::now();
    // What can be refused without the chain is asked for before the chain is opened, which may take a while.
    let mut auth = Auth::default();
    for login in &args.rpc_auth {
        auth.add_rpc_auth(login)
            .map_err(|_| anyhow!("--rpc-auth takes USER:SALT$HASH, not `{login}`"))?;
    }
    let mut rpc_listeners = Vec::new();
    let usual = [default_rpc(args.network)];
    for addr in if args.rpc_listen.is_empty() {
        &usual[..]
    } else {
        &args.rpc_listen
    } {
        rpc_listeners.push(listen(*addr, "--rpc-listen").await?);
    }
    if let Some((user, password)) = core.and_then(|files| files.password.as_ref()) {
        auth.add_password(user, password);
    }
    let api_listener = match args.disable.contains(&Part::Dashboard) {
        true => None,
        false => Some(listen(args.api_listen, "--api-listen").await?),
    };
    let mut zmq_listeners = Vec::new();
    for addr in args
        .zmq
        .iter()
        .flat_map(|wanted| &wanted.0)
        .map(|notifier| notifier.addr)
        .collect::<BTreeSet<_>>()
    {
        zmq_listeners.push(listen(addr, "--zmq").await?);
    }
    let stop = Stop::new();
    let mut door = Door {
        listeners: rpc_listeners,
        options: rpc::Options {
            auth,
            access: access(args),
            rest: args.rest,
            ..rpc::Options::default()
        },
        cookie: None,
    };
    // Tools made for Core know how to wait for a node that says that it is not ready.
    if let Some(path) = core.and_then(|files| files.cookie.as_deref()) {
        door.make_cookie(path)?;
    }
    let ready = Stop::new();
    let waiting = core.map(|_| door.warm_up(ready.clone())).transpose()?;

    let bitcoin = match args.disable.contains(&Part::Bitcoin) {
        true => None,
        false => {
            let (args, dir, stop) = (args.clone(), dir.to_owned(), stop.clone());
            let opening = tokio::task::spawn_blocking(move || Bitcoin::start(&args, &dir, &stop));
            Some(Arc::new(opening.await.context("the chain was not opened")??))
        }
    };
    let torrent = match args.disable.contains(&Part::Torrent) {
        true => None,
        false => match start_torrent(args, dir) {
            Ok(torrent) => Some(Arc::new(torrent)),
            Err(error) => {
                if let Some(bitcoin) = bitcoin
                    && let Err(fault) = bitcoin.stop()
                {
                    tracing::error!("{fault}");
                }
                return Err(error);
            }
        },
    };
    let zmq = match &bitcoin {
        Some(bitcoin) if !args.zmq.is_empty() => Some(publish(args, bitcoin, zmq_listeners, &stop)),
        _ => None,
    };
    let node = Arc::new(Node {
        network: args.network,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        user_agent: bitcoin::user_agent(&args.ua_comment),
        started,
        data_dir: dir.to_owned(),
        bitcoin: bitcoin.clone().map(|part| part as _),
        torrent: torrent.clone().map(|part| part as _),
        zmq,
        streams: dunlin_api::stream::Base::default(),
        logging,
        stop: stop.clone(),
    });
    ready.trigger();
    if let Some(waiting) = waiting {
        // Its answers are given, or their callers have gone.
        let _ = waiting.await;
    }

    let result = answer(args, dir, node, door, api_listener, bitcoin.as_deref(), core).await;
    stop.trigger();
    for command in &args.shutdown_notify {
        notify::run(command.clone(), "--shutdown-notify").await;
    }
    tracing::info!("stopping");
    if let Some(torrent) = torrent {
        torrent.stop();
    }
    if let Some(bitcoin) = bitcoin {
        bitcoin.save_addresses_now().await;
        // What made the chain stop explains whatever failed after it.
        bitcoin.stop()?;
    }
    // The cookie goes last: who waits for the end of this run waits for that.
    result.map(drop)
}

/// Publishes what happens to chain and memory pool at these listeners, which are in the order of their addresses.
fn publish(args: &RunArgs, bitcoin: &Bitcoin, listeners: Vec<TcpListener>, stop: &Stop) -> Arc<zmq::Publisher> {
    let notifiers = args.zmq.iter().flat_map(|wanted| wanted.0.iter().copied()).collect();
    let publisher = Arc::new(zmq::Publisher::new(bitcoin.view.clone(), notifiers));
    let told = Arc::clone(&publisher);
    let mut pool = bitcoin.pool.write().unwrap_or_else(PoisonError::into_inner);
    pool.set_listener(move |change| told.publish(change));
    drop(pool);
    let (served, stop) = (Arc::clone(&publisher), stop.clone());
    tokio::spawn(async move { served.serve(listeners, stop).await });
    publisher
}

fn start_torrent(args: &RunArgs, dir: &Path) -> anyhow::Result<Torrent> {
    let options = torrent::Options::daemon(args, dir);
    let torrent = Torrent::start(&options, Box::new(torrent::log_event))
        .context("cannot listen for BitTorrent peers; choose another address with --torrent-listen")?;
    if let Some(dir) = &options.resume_dir {
        torrent.go_on(dir);
    }
    Ok(torrent)
}

/// Serves those who ask us things, until a signal or the `stop` method ends it; gives back the files that stand
/// for this run until they are dropped.
async fn answer(
    args: &RunArgs,
    dir: &Path,
    node: Arc<Node>,
    mut door: Door,
    api_listener: Option<TcpListener>,
    bitcoin: Option<&Bitcoin>,
    core: Option<&CoreFiles>,
) -> anyhow::Result<Doorplate> {
    let stop = node.stop.clone();
    let torrent = node.torrent.clone();
    let rpc_addr = door.listeners.first().context("RPC has an address")?.local_addr()?;
    let writing = || format!("cannot write to the data directory {}", dir.display());
    let dashboard = match api_listener {
        None => None,
        Some(listener) => {
            let addr = listener.local_addr()?;
            let token = Token::load_or_create(&dir.join(API_TOKEN_FILE)).with_context(writing)?;
            std::fs::write(dir.join(API_ADDRESS_FILE), addr.to_string()).with_context(writing)?;
            node.streams.set(addr, &dunlin_api::stream::Key::of(token.as_str()));
            Some((listener, token, addr))
        }
    };
    std::fs::write(dir.join(RPC_ADDRESS_FILE), rpc_addr.to_string()).with_context(writing)?;
    // The cookie comes last: who sees it finds everything else ready.
    if core.is_none() {
        door.make_cookie(&dir.join(COOKIE_FILE))?;
    }
    let rpc_server = rpc::serve(door.listeners, Arc::clone(&node), door.options, stop.clone());
    let pid = core
        .and_then(|files| files.pid.as_deref())
        .map(PidFile::create)
        .transpose()?;
    tracing::info!(
        "dunlin {} on {}, in {}",
        env!("CARGO_PKG_VERSION"),
        args.network,
        dir.display()
    );
    match &dashboard {
        None => tracing::info!("RPC at {rpc_addr}"),
        Some((_, token, addr)) => {
            tracing::info!(
                "RPC at {rpc_addr}, dashboard at http://{addr}/?token={}",
                token.as_str()
            );
        }
    }
    let dashboard = async {
        match dashboard {
            None => Ok(()),
            Some((listener, token, _)) => dashboard::serve(listener, node, token, &[], stop.clone()).await,
        }
    };
    let signal = async {
        tokio::select! {
            result = signals::wait() => result.context("cannot wait for signals"),
            () = stop.wait() => Ok(()),
            () = save_addresses(bitcoin) => Ok(()),
            () = watch::watch(args.queue.watch_dir.as_deref(), torrent) => Ok(()),
            () = notify::watch(args, bitcoin) => Ok(()),
        }
        .inspect(|()| stop.trigger())
    };
    let (signal, rpc_server, dashboard) = tokio::join!(signal, rpc_server, dashboard);
    signal
        .and(rpc_server.context("RPC"))
        .and(dashboard.context("dashboard"))
        .map(|()| Doorplate {
            _cookie: door.cookie,
            _pid: pid,
        })
}

/// The files that tell others of this run.
struct Doorplate {
    _cookie: Option<Cookie>,
    _pid: Option<PidFile>,
}

/// Where RPC is answered, and to whom.
struct Door {
    listeners: Vec<TcpListener>,
    options: rpc::Options,
    cookie: Option<Cookie>,
}

impl Door {
    /// Writes the login of this run.
    fn make_cookie(&mut self, path: &Path) -> anyhow::Result<()> {
        let cookie = Cookie::create(path).with_context(|| format!("cannot write the login file {}", path.display()))?;
        cookie.allow(&mut self.options.auth);
        self.cookie = Some(cookie);
        Ok(())
    }

    /// Says that we are not ready, until we are.
    fn warm_up(&self, ready: Stop) -> anyhow::Result<tokio::task::JoinHandle<()>> {
        let twins = self.listeners.iter().map(|listener| {
            let twin = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
            TcpListener::from_std(twin)
        });
        let twins = twins.collect::<std::io::Result<Vec<_>>>()?;
        Ok(tokio::spawn(rpc::warm_up(twins, self.options.clone(), ready)))
    }
}

/// Who may call RPC, and what.
fn access(args: &RunArgs) -> rpc::Access {
    let mut access = rpc::Access::default();
    for network in &args.rpc_allow {
        access.allow_network(*network);
    }
    for list in &args.rpc_whitelist {
        access.add_whitelist(list);
    }
    if let Some(listed_only) = args.rpc_whitelist_default {
        access.set_listed_only(listed_only);
    }
    access
}

async fn listen(addr: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("cannot listen on {addr}; choose another address with {option}"))
}

/// Loopback, at Core's RPC port for the network.
pub(crate) fn default_rpc(network: Network) -> SocketAddr {
    let port = match network {
        Network::Mainnet => 8332,
        Network::Testnet3 => 18332,
        Network::Testnet4 => 48332,
        Network::Signet => 38332,
        Network::Regtest => 18443,
    };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

async fn save_addresses(bitcoin: Option<&Bitcoin>) {
    match bitcoin {
        Some(bitcoin) => bitcoin.save_addresses().await,
        None => std::future::pending().await,
    }
}
