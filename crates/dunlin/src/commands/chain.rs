//! `dunlin chain`.

use serde_json::{Value, json};

use crate::cli::{ChainArgs, ChainCommand};
use crate::client::Client;
use crate::output;

pub(crate) fn run(args: ChainArgs) -> anyhow::Result<()> {
    match args.command {
        ChainCommand::Verify { blocks, level, repair } => {
            return super::verify::run(&args.client, dunlin_chain::Verification { blocks, level, repair });
        }
        ChainCommand::Hints { height, output } => return super::hints::run(&args.client, height, &output),
        _ => {}
    }
    let client = Client::find(&args.client.connect)?;
    match args.command {
        ChainCommand::Info => info(&client, args.client.json),
        ChainCommand::Block { block } => show(&client.call("getblock", json!([hash(&client, &block)?, 1]))?),
        ChainCommand::Header { block } => show(&client.call("getblockheader", json!([hash(&client, &block)?, true]))?),
        ChainCommand::Tx { txid, block } => {
            let params = match block {
                Some(block) => json!([txid, 1, block]),
                None => json!([txid, 1]),
            };
            show(&client.call("getrawtransaction", params)?)
        }
        ChainCommand::Verify { .. } | ChainCommand::Hints { .. } => Ok(()),
    }
}

fn show(value: &Value) -> anyhow::Result<()> {
    output::json(value);
    Ok(())
}

/// A block hash from a hash or a height.
fn hash(client: &Client, block: &str) -> anyhow::Result<String> {
    match block.parse::<u32>() {
        Ok(height) => Ok(output_string(client.call("getblockhash", json!([height]))?)),
        Err(_) => Ok(block.to_owned()),
    }
}

fn output_string(value: Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn info(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let info = client.call("getblockchaininfo", json!([]))?;
    if as_json {
        return show(&info);
    }
    let progress = info.get("verificationprogress").and_then(Value::as_f64).unwrap_or(0.0);
    output::pairs(&[
        ("chain", output::field(&info, "chain")),
        ("blocks", output::field(&info, "blocks")),
        ("headers", output::field(&info, "headers")),
        ("tip", output::field(&info, "bestblockhash")),
        ("difficulty", output::field(&info, "difficulty")),
        ("chain work", output::field(&info, "chainwork")),
        ("verified", format!("{:.2} %", progress * 100.0)),
        ("still syncing", output::field(&info, "initialblockdownload")),
        ("on disk", output::bytes(output::number(&info, "size_on_disk"))),
    ]);
    Ok(())
}
