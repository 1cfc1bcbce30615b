//! `dunlin chain verify`: on the running peer, or on its files when none runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use dunlin_api::rpc;
use dunlin_chain::{Chain, ChainConfig, Network, Prune, Verification, VerifyReport};
use dunlin_store::{Lock, StoreError};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::{ClientArgs, ConnectArgs};
use crate::client::Client;
use crate::config;
use crate::daemon::data_dir::{self, network_dir};
use crate::output;

/// Checking the whole chain takes hours.
const LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(crate) fn run(args: &ClientArgs, asked: Verification) -> anyhow::Result<()> {
    let report = match idle_dir(&args.connect)? {
        Some((network, dir, _lock)) => offline(network, &dir, asked)?,
        None => {
            let params = json!([asked.blocks, asked.level, asked.repair]);
            Client::find_within(&args.connect, LIMIT)?.call("dunlin.verify", params)?
        }
    };
    let faults = report
        .get("faults")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if args.json {
        output::json(&report);
    } else {
        for fault in &faults {
            let repaired = fault.get("repaired").and_then(Value::as_bool) == Some(true);
            println!(
                "block {} {}: {}{}",
                output::field(fault, "height"),
                output::field(fault, "hash"),
                output::field(fault, "what"),
                if repaired { "; repaired, or fetched again" } else { "" }
            );
        }
        println!(
            "checked {} blocks at level {}",
            output::field(&report, "checked"),
            asked.level
        );
        let noted = |name: &str| report.get(name).and_then(Value::as_bool) == Some(true);
        if noted("blocks_missing") {
            println!("older blocks are not stored here");
        }
        if noted("coins_skipped") {
            println!("the coins of older blocks were not checked: they do not fit into the cache");
        }
    }
    let left = faults
        .iter()
        .filter(|fault| fault.get("repaired").and_then(Value::as_bool) != Some(true))
        .count();
    if left > 0 {
        bail!(
            "{} found; --repair mends what can be mended",
            output::count(left, "fault")
        );
    }
    Ok(())
}

/// The folder of a peer that does not run, held so that none starts in it; `None` when one runs.
pub(super) fn idle_dir(args: &ConnectArgs) -> anyhow::Result<Option<(Network, PathBuf, Lock)>> {
    let data_dir = args.data_dir.clone().unwrap_or_else(config::default_data_dir);
    let has_chain = |network: &Network| network_dir(&data_dir, *network).join("blocks").is_dir();
    let networks: Vec<Network> = match args.network {
        Some(network) => vec![network],
        None => Network::ALL.into_iter().filter(has_chain).collect(),
    };
    let [network] = networks[..] else {
        if networks.is_empty() {
            bail!("there is no chain in {}", data_dir.display());
        }
        bail!(
            "there are several chains in {}; choose one with --network",
            data_dir.display()
        );
    };
    if !has_chain(&network) {
        bail!("there is no {network} chain in {}", data_dir.display());
    }
    let dir = network_dir(&data_dir, network);
    match Lock::acquire(&dir) {
        Ok(lock) => Ok(Some((network, dir, lock))),
        Err(StoreError::InUse { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The chain in such a folder.
pub(super) fn open_idle(network: Network, dir: &Path) -> anyhow::Result<Chain> {
    let config = ChainConfig {
        // Whatever was pruned is pruned; nothing more is.
        prune: Prune::Manual,
        catch_up: false,
        ..ChainConfig::default()
    };
    Chain::open_dir(data_dir::params(dir, network)?, dir, config)
        .with_context(|| format!("cannot open the chain in {}", dir.display()))
}

fn offline(network: Network, dir: &Path, asked: Verification) -> anyhow::Result<Value> {
    let mut chain = open_idle(network, dir)?;
    let style = ProgressStyle::with_template("checking {bar:32} {pos}/{len}").context("the template is well formed")?;
    let bar = ProgressBar::new(0).with_style(style);
    let report: VerifyReport = chain.verify(&asked, &mut |done, all| {
        bar.set_length(all.into());
        bar.set_position(done.into());
    })?;
    bar.finish_and_clear();
    chain.close()?;
    Ok(rpc::report_json(&report))
}
