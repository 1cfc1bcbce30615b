//! `dunlin chain hints`: from the running peer, or from its files when none runs.

use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use dunlin_api::rpc;
use dunlin_chain::Network;
use dunlin_chain::snapshot::write_whole;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::verify::{idle_dir, open_idle};
use crate::cli::ClientArgs;
use crate::client::Client;
use crate::output;

/// Going through all coins and blocks takes hours on the main chain.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn run(args: &ClientArgs, height: u32, path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        bail!("{} already exists; move it out of the way first", path.display());
    }
    let made = match idle_dir(&args.connect)? {
        Some((network, dir, _lock)) => offline(network, &dir, height, path)?,
        None => {
            // The peer has another working directory.
            let path = std::path::absolute(path)?;
            let params = json!([path.display().to_string(), height]);
            Client::find_within(&args.connect, LIMIT)?.call("dunlin.hints", params)?
        }
    };
    if args.json {
        output::json(&made);
        return Ok(());
    }
    println!(
        "wrote the hints for height {height}, block {}, to {}: {} coins are unspent there",
        output::field(&made, "base_hash"),
        path.display(),
        output::number(&made, "coins")
    );
    Ok(())
}

fn offline(network: Network, dir: &Path, height: u32, path: &Path) -> anyhow::Result<Value> {
    let mut chain = open_idle(network, dir)?;
    let frozen = chain.freeze_coins()?;
    let style = ProgressStyle::with_template("hints {bar:32} {pos}/{len}").context("the template is well formed")?;
    let bar = ProgressBar::new(height.into()).with_style(style);
    let made = write_whole(path, |file| {
        let mut tell = |done: u32, _| bar.set_position(done.into());
        frozen.write_hints(height, BufWriter::new(file), &mut tell)
    })?;
    bar.finish_and_clear();
    chain.close()?;
    Ok(rpc::hints_json(&made, path))
}
