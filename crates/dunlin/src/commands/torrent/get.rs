//! `dunlin torrent get`: a download with a bar, without a daemon.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dunlin_torrent::InfoHash;
use dunlin_torrent::command::{AddTorrent, Event, Source};
use dunlin_torrent::status::{State, TorrentStatus};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::source;
use crate::cli::GetArgs;
use crate::daemon::signals;
use crate::daemon::torrent::{Options, Torrent, remembered, resumed};
use crate::output;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

pub(super) fn run(args: &GetArgs) -> anyhow::Result<()> {
    crate::daemon::start_log("warn");
    let source = source(&args.source)?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    let output = std::path::absolute(&args.output)?;
    let resume_dir = output.join(".dunlin");
    let _lock = dunlin_store::Lock::acquire(&resume_dir)
        .with_context(|| format!("another download may be going on in {}", output.display()))?;
    let options = Options {
        listen: args.listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
        download_dir: output.clone(),
        resume_dir: Some(resume_dir.clone()),
        discovery: args.discovery.clone(),
        rates: args.rates.clone(),
        queue: Default::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let torrent = Torrent::start(&options, Box::new(log_event))?;
    let result = runtime.block_on(fetch(args, &torrent, source, &output, &resume_dir));
    torrent.stop();
    if matches!(result, Ok(Outcome::Complete)) {
        // Nothing is left to resume, so nothing is left behind.
        let _ = std::fs::remove_dir_all(&resume_dir);
    }
    match result? {
        Outcome::Complete => Ok(()),
        Outcome::Interrupted => bail!("interrupted; the same command goes on where it stopped"),
    }
}

enum Outcome {
    Complete,
    Interrupted,
}

fn log_event(event: &Event) {
    match event {
        Event::PieceFailed { piece, from, .. } => {
            tracing::warn!("piece {piece} came with wrong bytes from {from:?}; it is fetched again");
        }
        Event::PeerBanned { addr, reason, .. } => tracing::warn!("peer {addr} is dropped: {reason}"),
        _ => {}
    }
}

async fn fetch(
    args: &GetArgs,
    torrent: &Torrent,
    source: Source,
    output: &Path,
    resume_dir: &Path,
) -> anyhow::Result<Outcome> {
    let info_hash = source.info_hash();
    let mut add = match remembered(resume_dir, info_hash) {
        // A download directory that was moved is a new place: what is in it is checked.
        Some(saved) if saved.dir == output => resumed(saved, Some(source))?,
        _ => AddTorrent::new(source, output.to_owned()),
    };
    add.paused = false;
    add.peers.extend(&args.peer);
    torrent.add(add);

    let bar = progress_bar(args.json)?;
    let start = Instant::now();
    let mut watch = Stall::new(args.stall_timeout);
    // One wait for the whole loop: a signal that comes between two turns is not lost.
    let mut signal = pin!(signals::wait());
    loop {
        tokio::select! {
            signal = &mut signal => {
                signal?;
                bar.finish_and_clear();
                return Ok(Outcome::Interrupted);
            }
            () = tokio::time::sleep(TICK) => {}
        }
        let Some(status) = status(torrent, info_hash).await? else {
            continue;
        };
        if let Some(error) = &status.error {
            bail!("{error}");
        }
        show(&bar, &status);
        if status.state == State::Seeding {
            bar.finish_and_clear();
            report(args, &status, start.elapsed());
            break;
        }
        watch.look(&status)?;
    }
    if args.keep_seeding {
        eprintln!("sharing until Ctrl-C");
        signal.await?;
    }
    Ok(Outcome::Complete)
}

async fn status(torrent: &Torrent, info_hash: InfoHash) -> anyhow::Result<Option<TorrentStatus>> {
    Ok(torrent
        .status()
        .await?
        .into_iter()
        .find(|status| status.info_hash == info_hash))
}

fn progress_bar(json: bool) -> anyhow::Result<ProgressBar> {
    if json {
        return Ok(ProgressBar::hidden());
    }
    let template = "{prefix:.bold} {bar:28} {percent:>3} %  {bytes}/{total_bytes}  {msg}";
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(template).context("the template is well formed")?))
}

fn show(bar: &ProgressBar, status: &TorrentStatus) {
    let name: String = status.name.chars().filter(|c| !c.is_control()).take(32).collect();
    bar.set_prefix(name);
    bar.set_length(status.total_bytes);
    bar.set_position(status.done_bytes);
    let doing = match status.state {
        State::Metadata => "asking for the metadata".to_owned(),
        State::Checking => "checking what is there".to_owned(),
        _ => format!("{}/s", output::bytes(status.download_rate)),
    };
    let eta = status.eta.map_or_else(String::new, |secs| {
        format!("  {}", output::span(Duration::from_secs(secs)))
    });
    bar.set_message(format!("{doing}  {}{eta}", output::count(status.peers.len(), "peer")));
}

fn report(args: &GetArgs, status: &TorrentStatus, took: Duration) {
    if args.json {
        let line = json!({
            "info_hash": status.info_hash.to_string(),
            "name": status.name,
            "dir": status.dir,
            "bytes": status.total_bytes,
            "downloaded": status.downloaded,
            "uploaded": status.uploaded,
            "wasted": status.wasted,
            "seconds": took.as_secs_f64(),
        });
        println!("{line}");
    } else {
        let place = status.dir.join(&status.name);
        println!(
            "{} is complete: {} in {}",
            place.display(),
            output::bytes(status.total_bytes),
            output::span(took)
        );
    }
}

/// Notices when nothing at all moves any more.
struct Stall {
    limit: Duration,
    since: Instant,
    seen: (bool, u64, u64),
}

impl Stall {
    fn new(secs: u64) -> Self {
        Self {
            limit: Duration::from_secs(secs),
            since: Instant::now(),
            seen: (false, 0, 0),
        }
    }

    fn look(&mut self, status: &TorrentStatus) -> anyhow::Result<()> {
        let seen = (status.total_bytes > 0, status.done_bytes, status.downloaded);
        if seen != self.seen || status.state == State::Checking {
            self.seen = seen;
            self.since = Instant::now();
        }
        if self.limit.is_zero() || self.since.elapsed() < self.limit {
            return Ok(());
        }
        let waited = output::span(self.limit);
        if status.peers.is_empty() && status.known_peers == 0 {
            bail!("no peers found in {waited}; name one with --peer, or try later: the same command goes on");
        }
        bail!(
            "nothing arrived for {waited} from {}; try later: the same command goes on",
            output::count(status.peers.len(), "peer")
        )
    }
}
