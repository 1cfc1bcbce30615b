//! `dunlin mine`.

use anyhow::Context;
use bitcoin::ScriptBuf;
use bitcoin::opcodes::OP_TRUE;
use dunlin_chain::Network;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::MineArgs;
use crate::client::Client;
use crate::output;

/// Blocks asked for in one call, so that the bar moves and Ctrl-C is heard.
const BATCH: u32 = 25;

pub(crate) fn run(args: &MineArgs) -> anyhow::Result<()> {
    let client = Client::find(&args.client.connect)?;
    let address = match &args.to {
        Some(address) => address.clone(),
        None => anyone_can_spend(&client)?,
    };
    let bar = ProgressBar::new(args.blocks.into()).with_style(
        ProgressStyle::with_template("mining {bar:32} {pos}/{len} blocks").context("the template is well formed")?,
    );
    let mut hashes = Vec::new();
    while hashes.len() < args.blocks as usize {
        let count = BATCH.min(args.blocks - hashes.len() as u32);
        let answer = client.call("generatetoaddress", json!([count, address]))?;
        let batch = answer.as_array().context("generatetoaddress answers with a list")?;
        anyhow::ensure!(!batch.is_empty(), "no block was found");
        hashes.extend(batch.iter().cloned());
        bar.set_position(hashes.len() as u64);
    }
    bar.finish_and_clear();
    if args.client.json {
        output::json(&Value::Array(hashes));
        return Ok(());
    }
    if args.to.is_none() {
        eprintln!("The reward goes to an output that anyone can spend; choose who gets it with --to ADDRESS.");
    }
    for hash in &hashes {
        println!("{}", hash.as_str().unwrap_or_default());
    }
    Ok(())
}

/// The address of a witness script that is always true.
fn anyone_can_spend(client: &Client) -> anyhow::Result<String> {
    let info = client.call("getblockchaininfo", json!([]))?;
    let chain = output::field(&info, "chain");
    let network = Network::ALL.into_iter().find(|network| network.chain_name() == chain);
    let network = network.with_context(|| format!("the peer is on an unknown chain {chain}"))?;
    let script = bitcoin::script::Builder::new().push_opcode(OP_TRUE).into_script();
    let script_pubkey = ScriptBuf::new_p2wsh(&script.wscript_hash());
    Ok(bitcoin::Address::from_script(&script_pubkey, network.to_bitcoin().params())?.to_string())
}
