//! `bitcoind`: Core's settings become the options of `dunlin run`; only the Bitcoin part runs.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Parser;
use dunlin_api::rpc::Logging;
use dunlin_api::zmq;
use dunlin_chain::{Network, Params};
use dunlin_peer::{Host, NetAddr};

use super::options::Program;
use super::settings::Settings;
use crate::cli::{Cli, Command, RunArgs};
use crate::daemon::data_dir::{COOKIE_FILE, network_dir};
use crate::daemon::{self, CoreFiles, default_rpc};

/// Core's limit on connections.
const MAX_CONNECTIONS: usize = 125;
/// How many of them we open ourselves: 8 that relay all, 2 that relay blocks only, one feeler.
const OUTBOUND: usize = 11;
/// How often `-daemonwait` looks whether the daemon is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runs `bitcoind` with these arguments.
///
/// # Errors
/// When the settings make no sense, or as [`daemon::run`].
pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    let settings = Settings::read(Program::Daemon, args)?;
    if settings.asks_for_help() {
        super::print_help(Program::Daemon, &settings);
        return Ok(());
    }
    for warning in &settings.warnings {
        eprintln!("Warning: {warning}");
    }
    if settings.switch("persistmempool") == Some(false) {
        eprintln!("Warning: -persistmempool=0 has no effect in this version of Dunlin: the memory pool is kept.");
    }
    let wait = settings.is_on("daemonwait");
    let background = wait || settings.is_on("daemon");
    let dir = network_dir(&settings.data_dir, settings.network);
    refuse_foreign_data(&dir)?;
    let run_args = run_args(&settings)?;
    let files = core_files(&settings, &dir, background)?;
    if background {
        return go_on_in_background(args, &files, wait);
    }
    daemon::run(run_args, Some(&files))
}

/// A directory that Core has filled is not ours to write into.
fn refuse_foreign_data(dir: &Path) -> anyhow::Result<()> {
    for theirs in ["chainstate/CURRENT", "blocks/index/CURRENT"] {
        ensure!(
            !dir.join(theirs).exists(),
            "{} holds the data of Bitcoin Core; choose another -datadir (its block files can be taken with -loadblock).",
            dir.display()
        );
    }
    Ok(())
}

/// The same settings as options of `dunlin run`.
fn run_args(settings: &Settings) -> anyhow::Result<RunArgs> {
    let network = settings.network;
    let port = Params::new(network).default_port;
    let mut args: Vec<OsString> = ["dunlin", "run", "--disable=torrent", "--disable=dashboard"]
        .map(OsString::from)
        .into();
    let mut say = |name: &str, value: &str| args.push(format!("--{name}={value}").into());
    say("network", network.name());

    let connect: Vec<String> = settings.list("connect");
    let negated = settings.switch("connect") == Some(false) && connect.iter().all(|peer| peer == "0");
    let connects_only = negated || !connect.is_empty();
    let bind = settings.list("bind");
    let listens = settings.switch("listen").unwrap_or(!bind.is_empty() || !connects_only);
    if listens {
        say("listen", &listen_address(settings, &bind, port)?.to_string());
    }
    for peer in connect.iter().filter(|peer| *peer != "0") {
        say("connect", &resolve_peer(peer, port)?.to_string());
    }
    for peer in settings.list("addnode") {
        say("add-peer", &resolve_peer(&peer, port)?.to_string());
    }
    let connections = settings.number("maxconnections")?.unwrap_or(MAX_CONNECTIONS);
    say("max-inbound", &connections.saturating_sub(OUTBOUND).to_string());
    for comment in settings.list("uacomment") {
        say("ua-comment", &comment);
    }
    if let Some(cache) = settings.number::<u64>("dbcache")? {
        say("db-cache", &cache.max(4).to_string());
    }
    if let Some(threads) = settings.number::<i64>("par")?.filter(|threads| *threads != 0) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let left = usize::try_from(threads.unsigned_abs()).unwrap_or(usize::MAX);
        let threads = if threads > 0 { left } else { cores.saturating_sub(left) };
        say("script-threads", &threads.clamp(1, 16).to_string());
    }
    for (core, ours) in [
        ("prune", "prune"),
        ("blocknotify", "block-notify"),
        ("alertnotify", "alert-notify"),
    ] {
        if let Some(value) = settings.text(core) {
            say(ours, &value);
        }
    }
    match settings.text("assumevalid").as_deref() {
        None if settings.switch("assumevalid") == Some(false) => say("assume-valid", "none"),
        None => {}
        Some(hash) if hash.trim_matches('0').is_empty() => say("assume-valid", "none"),
        Some(hash) => say("assume-valid", hash),
    }
    if let Some(work) = settings.text("minimumchainwork") {
        say("minimum-chain-work", &work);
    }
    if let Some(challenge) = settings.text("signetchallenge").filter(|_| network == Network::Signet) {
        say("signet-challenge", &challenge);
    }
    for option in settings.list("test") {
        ensure!(
            option == "bip94",
            "Unrecognised option \"{option}\" provided in -test=<option>."
        );
        say("test-rule", "bip94");
    }
    for rule in settings.list("testactivationheight") {
        say("test-rule", &rule);
    }
    for file in settings.list("loadblock") {
        say("load-block", &file);
    }
    for (core, ours) in [
        ("txindex", "tx"),
        ("txospenderindex", "spender"),
        ("coinstatsindex", "stats"),
    ] {
        if settings.is_on(core) {
            say("index", ours);
        }
    }
    match settings.text("blockfilterindex").as_deref() {
        None | Some("0") => {}
        Some("" | "1" | "basic") => say("index", "filter"),
        Some(other) => bail!("Unknown -blockfilterindex value {other}."),
    }
    for topic in zmq::Topic::ALL.map(zmq::Topic::name) {
        let high_water = settings
            .number(&format!("zmqpub{topic}hwm"))?
            .unwrap_or(zmq::DEFAULT_HIGH_WATER);
        for address in settings.list(&format!("zmqpub{topic}")) {
            // ZeroMQ's own sign for every address of this machine.
            let place = address
                .strip_prefix("tcp://")
                .unwrap_or(&address)
                .replace('*', "0.0.0.0");
            say("zmq", &format!("{topic}={place}/{high_water}"));
        }
    }
    for (name, value) in super::networks::options(settings)? {
        say(name, &value);
    }
    for addr in rpc_addresses(settings)? {
        say("rpc-listen", &addr.to_string());
    }
    for (core, ours) in [
        ("rpcallowip", "rpc-allow"),
        ("rpcauth", "rpc-auth"),
        ("rpcwhitelist", "rpc-whitelist"),
        ("startupnotify", "startup-notify"),
        ("shutdownnotify", "shutdown-notify"),
    ] {
        for value in settings.list(core) {
            say(ours, &value);
        }
    }
    if let Some(on) = settings.switch("rpcwhitelistdefault") {
        say("rpc-whitelist-default", if on { "true" } else { "false" });
    }
    if let Some(time) = settings.number::<u32>("mocktime")?.filter(|time| *time > 0) {
        say("mock-time", &time.to_string());
    }
    let mut data_dir = OsString::from("--data-dir=");
    data_dir.push(&settings.data_dir);
    args.push(data_dir);
    let switches = [
        (!listens, "--no-listen"),
        (negated, "--no-dial"),
        (!settings.switch("dnsseed").unwrap_or(!connects_only), "--no-dns-seed"),
        (!settings.switch("v2transport").unwrap_or(true), "--no-v2transport"),
        (settings.is_on("rest"), "--rest"),
        (settings.is_on("privatebroadcast"), "--private-broadcast"),
        (settings.switch("fixedseeds") == Some(false), "--no-fixed-seeds"),
        (settings.is_on("cjdnsreachable"), "--cjdns-reachable"),
        (
            settings.text("i2psam").is_some() && settings.switch("i2pacceptincoming") == Some(false),
            "--no-i2p-accept",
        ),
        (settings.is_on("blocksonly"), "--blocks-only"),
        (settings.is_on("peerblockfilters"), "--peer-block-filters"),
        (settings.is_on("fastprune"), "--fast-prune"),
        (settings.is_on("reindex"), "--reindex"),
        (
            settings.is_on("reindex-chainstate") && !settings.is_on("reindex"),
            "--reindex-chainstate",
        ),
    ];
    args.extend(
        switches
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, switch)| OsString::from(switch)),
    );
    ensure!(
        settings.switch("server") != Some(false),
        "-server=0 cannot be carried out by this version of Dunlin; RPC is always served, on this machine only."
    );
    ensure!(
        settings.switch("networkactive") != Some(false),
        "-networkactive=0 cannot be carried out by this version of Dunlin; -connect=0 -listen=0 keeps it alone."
    );
    match Cli::try_parse_from(args)
        .map_err(|error| anyhow!("{}", crate::mistake(&error.to_string())))?
        .command
    {
        Command::Run(args) => Ok(*args),
        _ => bail!("the run command is not defined"),
    }
}

/// Where peers are listened for: one address.
fn listen_address(settings: &Settings, bind: &[String], default_port: u16) -> anyhow::Result<SocketAddr> {
    let port = settings.number("port")?.unwrap_or(default_port);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    // Addresses for Tor alone listen for nobody else.
    let addresses: Vec<&String> = bind.iter().filter(|bind| !bind.ends_with("=onion")).collect();
    match addresses.as_slice() {
        [] => Ok(everywhere),
        [bind] => resolve(bind, port),
        _ => bail!("-bind can be given once in this version of Dunlin; -bind=0.0.0.0 listens on all addresses."),
    }
}

/// Where RPC is served: on this machine alone, unless both who may call and at which addresses is said, as in Core.
fn rpc_addresses(settings: &Settings) -> anyhow::Result<Vec<SocketAddr>> {
    let mut usual = default_rpc(settings.network);
    if let Some(port) = settings.number("rpcport")? {
        usual.set_port(port);
    }
    let (bind, allowed) = (settings.list("rpcbind"), settings.list("rpcallowip"));
    let loopback_only = allowed.is_empty();
    let addresses = bind
        .iter()
        .map(|bind| resolve(bind, usual.port()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    match addresses.as_slice() {
        [] => {
            if !loopback_only {
                eprintln!("Warning: -rpcallowip without -rpcbind: RPC is served on this machine only.");
            }
            Ok(vec![usual])
        }
        [..] if loopback_only && !addresses.iter().all(|addr| addr.ip().is_loopback()) => {
            eprintln!("Warning: -rpcbind is ignored without -rpcallowip: nobody else may call RPC.");
            Ok(vec![usual])
        }
        [..] => Ok(addresses),
    }
}

/// The categories of `-debug` that `-debugexclude` leaves.
fn debug_categories(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let chosen = Logging::default();
    for (option, on) in [("debug", true), ("debugexclude", false)] {
        let mut given = settings.list(option);
        // From the last of these on, nothing before counts.
        if let Some(none) = given.iter().rposition(|topic| matches!(topic.as_str(), "0" | "none")) {
            given.drain(..=none);
        }
        for topic in given {
            ensure!(
                chosen.switch(&topic, on),
                "Unsupported logging category -{option}={topic}."
            );
        }
    }
    Ok(chosen.active().into_iter().map(str::to_owned).collect())
}

/// A peer's address: one that [`resolve`] finds, or a name on Tor or I2P.
fn resolve_peer(text: &str, default_port: u16) -> anyhow::Result<NetAddr> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    match text.parse::<Host>() {
        Ok(host) => Ok(NetAddr::at_default_port(host, default_port)),
        Err(_) => resolve(text, default_port).map(NetAddr::from),
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn resolve(text: &str, default_port: u16) -> anyhow::Result<SocketAddr> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    let name = if text.contains(':') {
        text.to_owned()
    } else {
        format!("{text}:{default_port}")
    };
    let unknown = || format!("Cannot resolve address: '{text}'");
    name.to_socket_addrs()
        .with_context(unknown)?
        .next()
        .with_context(unknown)
}

fn core_files(settings: &Settings, dir: &Path, background: bool) -> anyhow::Result<CoreFiles> {
    let password = match (settings.text("rpcuser"), settings.text("rpcpassword")) {
        (user, Some(password)) if !password.is_empty() => Some((user.unwrap_or_default(), password)),
        _ => None,
    };
    Ok(CoreFiles {
        cookie: match &password {
            Some(_) => None,
            None => settings.path("rpccookiefile", dir, COOKIE_FILE),
        },
        password,
        pid: settings.path("pid", dir, "bitcoind.pid"),
        log: settings.path("debuglogfile", dir, "debug.log"),
        debug: debug_categories(settings)?,
        console: !background && settings.switch("printtoconsole").unwrap_or(true),
    })
}

/// Starts this program again without a terminal; with `wait`, returns once it is ready.
fn go_on_in_background(args: &[String], files: &CoreFiles, wait: bool) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    println!("Bitcoin Core starting");
    let mut child = Process::new(program)
        .arg0("bitcoind")
        .args(args)
        .args(["-nodaemon", "-nodaemonwait", "-printtoconsole=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("cannot start in the background")?;
    if !wait {
        return Ok(());
    }
    let pid_file = files.pid.clone().context("-daemonwait needs the file of -pid")?;
    loop {
        if let Some(status) = child.try_wait()? {
            let log = files.log.as_deref().map(Path::display);
            bail!(
                "the daemon ended with {status}; see {}",
                log.map_or_else(|| "its log".to_owned(), |log| log.to_string())
            );
        }
        // It is written once RPC answers.
        if std::fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == child.id().to_string()) {
            return Ok(());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A file that goes away with the run it names.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes our process id.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot write the file of -pid, {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A file that somebody took away already is no loss.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mapped(args: &[&str]) -> anyhow::Result<RunArgs> {
        let dir = tempfile::tempdir().unwrap();
        let mut all = vec![format!("-datadir={}", dir.path().display()), "-regtest".to_owned()];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        run_args(&Settings::read(Program::Daemon, &all)?)
    }

    fn fault(args: &[&str]) -> String {
        format!("{:#}", mapped(args).unwrap_err())
    }

    #[test]
    fn settings_become_options_of_our_own() {
        let args = mapped(&[]).unwrap();
        assert_eq!(args.listen, Some("0.0.0.0:18444".parse().unwrap()));
        assert_eq!(args.rpc_listen, ["127.0.0.1:18443".parse().unwrap()]);
        assert!(!args.no_listen && !args.no_dial && !args.no_dns_seed);
        let args = mapped(&[
            "-connect=127.0.0.1",
            "-addnode=[::1]:7",
            "-rpcport=9",
            "-maxconnections=20",
        ])
        .unwrap();
        assert_eq!(args.connect, ["127.0.0.1:18444".parse().unwrap()]);
        assert_eq!(args.add_peer, ["[::1]:7".parse().unwrap()]);
        assert!(args.no_listen && args.no_dns_seed && !args.no_dial);
        assert_eq!((args.rpc_listen[0].port(), args.max_inbound), (9, 9));
        for alone in ["-connect=0", "-noconnect"] {
            let args = mapped(&[alone, "-bind=127.0.0.1"]).unwrap();
            assert!(args.no_dial && args.connect.is_empty() && !args.no_listen, "{alone}");
        }
        let args = mapped(&[
            "-txindex",
            "-blockfilterindex=1",
            "-assumevalid=0",
            "-par=-1000",
            "-uacomment=x y",
        ])
        .unwrap();
        assert_eq!(args.index.len(), 2);
        assert_eq!(args.assume_valid.as_deref(), Some("none"));
        assert_eq!(
            (args.script_threads, args.ua_comment.as_slice()),
            (Some(1), &["x y".to_owned()][..])
        );
    }

    #[test]
    fn rpc_is_open_to_others_only_where_both_options_say_so() {
        let listens = |args: &[&str]| mapped(args).unwrap().rpc_listen;
        let usual: Vec<SocketAddr> = vec!["127.0.0.1:18443".parse().unwrap()];
        assert_eq!(listens(&["-rpcbind=0.0.0.0"]), usual);
        assert_eq!(listens(&["-rpcallowip=10.0.0.0/8"]), usual);
        let open = ["-rpcbind=0.0.0.0", "-rpcbind=[::1]:5", "-rpcallowip=10.0.0.0/8"];
        let both: Vec<SocketAddr> = vec!["0.0.0.0:18443".parse().unwrap(), "[::1]:5".parse().unwrap()];
        assert_eq!(listens(&open), both);
        assert_eq!(mapped(&open).unwrap().rpc_allow.len(), 1);
    }

    #[test]
    fn categories_of_the_log() {
        let chosen = |args: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let mut all = vec![format!("-datadir={}", dir.path().display())];
            all.extend(args.iter().map(|&arg| arg.to_owned()));
            debug_categories(&Settings::read(Program::Daemon, &all).unwrap())
        };
        assert!(chosen(&[]).unwrap().is_empty());
        assert_eq!(chosen(&["-debug=net", "-debug=rpc"]).unwrap(), ["net", "rpc"]);
        assert_eq!(chosen(&["-debug=net", "-debug=0", "-debug=rpc"]).unwrap(), ["rpc"]);
        let most = chosen(&["-debug", "-debugexclude=net"]).unwrap();
        assert!(most.len() > 20 && !most.contains(&"net".to_owned()));
        assert!(
            chosen(&["-debug=colour"])
                .unwrap_err()
                .to_string()
                .contains("-debug=colour")
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        assert!(fault(&["-server=0"]).contains("-server=0"));
        assert!(fault(&["-rpcallowip=nowhere"]).contains("nowhere"));
        assert!(fault(&["-mocktime=-1"]).contains("-mocktime"));
        assert!(fault(&["-prune=7"]).contains("550"));
        assert!(fault(&["-dbcache=many"]).contains("-dbcache"));
    }
}
