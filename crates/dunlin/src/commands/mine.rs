//! `dunlin mine`: on regtest the peer finds the blocks; on a signet they are signed and found here, so that the keys of
//! its challenge go to nobody.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use bitcoin::consensus::deserialize;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::FromHex;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::{Address, Amount, Block, CompactTarget, PrivateKey, ScriptBuf, Transaction};
use dunlin_chain::build::{Base, assemble, solve, solve_challenge};
use dunlin_chain::rules::subsidy;
use dunlin_chain::{Network, Params};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::MineArgs;
use crate::client::Client;
use crate::output;

/// Blocks asked for in one call, so that the bar moves and Ctrl-C is heard.
const BATCH: u32 = 25;

pub(crate) fn run(args: &MineArgs) -> anyhow::Result<()> {
    let client = Client::find(&args.client.connect)?;
    let network = network(&client)?;
    let address = match &args.to {
        Some(address) => address.clone(),
        None => anyone_can_spend(network)?,
    };
    let bar = ProgressBar::new(args.blocks.into()).with_style(
        ProgressStyle::with_template("mining {bar:32} {pos}/{len} blocks").context("the template is well formed")?,
    );
    let mut hashes: Vec<Value> = Vec::new();
    if network == Network::Signet {
        let keys = args
            .signet_key
            .as_deref()
            .map(read_keys)
            .transpose()?
            .unwrap_or_default();
        let script = parse_address(&address)?
            .require_network(network.to_bitcoin())?
            .script_pubkey();
        while hashes.len() < args.blocks as usize {
            hashes.push(mine_signed(&client, &script, &keys)?.into());
            bar.inc(1);
        }
    } else {
        ensure!(
            args.signet_key.is_none(),
            "--signet-key is for signets; the peer is on {network}"
        );
        while hashes.len() < args.blocks as usize {
            let count = BATCH.min(args.blocks - hashes.len() as u32);
            let answer = client.call("generatetoaddress", json!([count, address]))?;
            let batch = answer.as_array().context("generatetoaddress answers with a list")?;
            ensure!(!batch.is_empty(), "no block was found");
            hashes.extend(batch.iter().cloned());
            bar.set_position(hashes.len() as u64);
        }
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

/// The network that the peer is on.
fn network(client: &Client) -> anyhow::Result<Network> {
    let info = client.call("getblockchaininfo", json!([]))?;
    let chain = output::field(&info, "chain");
    let network = Network::ALL.into_iter().find(|network| network.chain_name() == chain);
    network.with_context(|| format!("the peer is on an unknown chain {chain}"))
}

/// The address of a witness script that is always true.
fn anyone_can_spend(network: Network) -> anyhow::Result<String> {
    let script = bitcoin::script::Builder::new().push_opcode(OP_TRUE).into_script();
    let script_pubkey = ScriptBuf::new_p2wsh(&script.wscript_hash());
    Ok(Address::from_script(&script_pubkey, network.to_bitcoin().params())?.to_string())
}

fn parse_address(text: &str) -> anyhow::Result<Address<bitcoin::address::NetworkUnchecked>> {
    text.parse().with_context(|| format!("--to: {text} is no address"))
}

/// The keys in a file, one a line.
fn read_keys(path: &Path) -> anyhow::Result<Vec<PrivateKey>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("--signet-key: cannot read {}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let key = |(number, line): (usize, &str)| {
        let named = || {
            format!(
                "--signet-key: line {} of {} is no private key",
                number + 1,
                path.display()
            )
        };
        PrivateKey::from_wif(line).with_context(named)
    };
    lines.enumerate().map(key).collect()
}

/// Makes the next block of a signet, signs it, finds it and hands it in.
fn mine_signed(client: &Client, script: &ScriptBuf, keys: &[PrivateKey]) -> anyhow::Result<String> {
    let template = client.call("getblocktemplate", json!([{"rules": ["segwit", "signet"]}]))?;
    let (params, mut block) = assembled(&template, script).context("the peer's template is of no use")?;
    if let Err(error) = solve_challenge(&params, &mut block, keys) {
        bail!("{error}; give the private keys of the challenge in a file with --signet-key");
    }
    ensure!(solve(&mut block), "no nonce meets the target; try again");
    let answer = client.call("submitblock", json!([serialize_hex(&block)]))?;
    match answer.as_str() {
        None => Ok(block.block_hash().to_string()),
        Some(reason) => bail!("the peer refused the block: {reason}"),
    }
}

/// The unsolved block that a template describes, and the signet's parameters.
fn assembled(template: &Value, script: &ScriptBuf) -> anyhow::Result<(Params, Block)> {
    let text = |name: &str| template[name].as_str().with_context(|| format!("it has no {name}"));
    let number = |name: &str| template[name].as_u64().with_context(|| format!("it has no {name}"));
    let params = Params::signet(ScriptBuf::from_hex(text("signet_challenge")?)?);
    let base = Base {
        height: u32::try_from(number("height")?)?,
        parent: text("previousblockhash")?.parse()?,
        bits: CompactTarget::from_unprefixed_hex(text("bits")?)?,
        time: u32::try_from(number("curtime")?)?,
    };
    let mut txs: Vec<Transaction> = Vec::new();
    for tx in template["transactions"].as_array().context("it has no transactions")? {
        let data = tx["data"].as_str().context("a transaction has no data")?;
        txs.push(deserialize(&Vec::from_hex(data)?)?);
    }
    let reward = subsidy(base.height, params.subsidy_halving_interval);
    let fees = Amount::from_sat(number("coinbasevalue")?)
        .checked_sub(reward)
        .context("its coinbasevalue is less than the subsidy")?;
    let block = assemble(&params, &base, txs, fees, script.clone(), b"");
    Ok((params, block))
}
