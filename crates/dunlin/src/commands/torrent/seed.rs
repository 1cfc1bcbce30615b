//! `dunlin torrent seed`: shares a file or folder, without a daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dunlin_torrent::Metainfo;
use dunlin_torrent::command::{AddTorrent, Source};
use dunlin_torrent::create;
use dunlin_torrent::status::State;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::SeedArgs;
use crate::daemon::signals;
use crate::daemon::torrent::{Options, Torrent};
use crate::output;

/// How often the line of figures changes.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn run(args: &SeedArgs) -> anyhow::Result<()> {
    crate::daemon::start_log("warn");
    let (mut metainfo, dir) = content(args)?;
    for url in &args.tracker {
        metainfo.trackers.push(vec![url.clone()]);
    }
    let options = Options {
        listen: args.listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
        download_dir: dir.clone(),
        resume_dir: None,
        discovery: args.discovery.clone(),
        rates: args.rates.clone(),
        queue: Default::default(),
    };
    let torrent = Torrent::start(&options, Box::new(|_| {}))?;
    let info_hash = metainfo.info_hash;
    println!("info hash  {info_hash}");
    println!("magnet     {}", magnet(&metainfo));
    for addr in torrent.listening() {
        println!("listening  {addr}");
    }
    let mut add = AddTorrent::new(Source::Metainfo(Arc::new(metainfo)), dir);
    add.seed_only = true;
    add.peers.clone_from(&args.peer);
    torrent.add(add);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(&torrent));
    torrent.stop();
    result
}

/// The torrent to share, and the folder that its files are under.
fn content(args: &SeedArgs) -> anyhow::Result<(Metainfo, PathBuf)> {
    let is_torrent = args
        .path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"));
    if is_torrent || args.data.is_some() {
        let metainfo = super::metainfo(&args.path)?;
        let dir = match &args.data {
            Some(dir) => dir.clone(),
            // A bare file name has an empty parent, which means the folder we are in.
            None => Path::new(".").join(args.path.parent().unwrap_or(Path::new(""))),
        };
        let dir = std::path::absolute(&dir)?;
        ensure!(
            dir.is_dir(),
            "{} is no folder; --data names the folder that holds the torrent's files",
            dir.display()
        );
        return Ok((metainfo, dir));
    }
    let created = super::hash_with_progress(&args.path, &create::Options::default())
        .with_context(|| format!("cannot share {}", args.path.display()))?;
    Ok((created.metainfo, created.dir))
}

fn magnet(metainfo: &Metainfo) -> String {
    let mut magnet = dunlin_torrent::Magnet::new(metainfo.info_hash);
    magnet.name = Some(metainfo.name.clone());
    magnet.trackers = metainfo.trackers.iter().flatten().cloned().collect();
    magnet.to_string()
}

async fn serve(torrent: &Torrent) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{spinner} {msg}").context("the template is well formed")?;
    let line = ProgressBar::new_spinner().with_style(style);
    let mut announced = false;
    // One wait for the whole loop: a signal that comes between two turns is not lost.
    let mut signal = pin!(signals::wait());
    loop {
        tokio::select! {
            signal = &mut signal => {
                signal?;
                line.finish_and_clear();
                return Ok(());
            }
            () = tokio::time::sleep(if announced { TICK } else { TICK / 10 }) => {}
        }
        let Some(status) = torrent.status().await?.into_iter().next() else {
            continue;
        };
        if let Some(error) = &status.error {
            bail!("{error}");
        }
        match status.state {
            State::Checking => line.set_message(format!("checking {}", output::bytes(status.total_bytes))),
            State::Seeding => {
                if !announced {
                    println!("sharing    {} ({})", status.name, output::bytes(status.total_bytes));
                    announced = true;
                }
                line.set_message(format!(
                    "{}  {}/s  {} given",
                    output::count(status.peers.len(), "peer"),
                    output::bytes(status.upload_rate),
                    output::bytes(status.uploaded)
                ));
            }
            _ => bail!(
                "{} of {} pieces are missing or damaged in {}; fetch them with `dunlin torrent get`",
                status.piece_count.saturating_sub(status.pieces_done),
                status.piece_count,
                status.dir.display()
            ),
        }
        line.tick();
    }
}
