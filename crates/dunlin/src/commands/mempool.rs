//! `dunlin mempool`.

use serde_json::{Value, json};

use crate::cli::{MempoolArgs, MempoolCommand};
use crate::client::Client;
use crate::output;

pub(crate) fn run(args: MempoolArgs) -> anyhow::Result<()> {
    let client = Client::find(&args.client.connect)?;
    let answer = match &args.command {
        MempoolCommand::Info => client.call("getmempoolinfo", json!([]))?,
        MempoolCommand::List => client.call("getrawmempool", json!([true]))?,
        MempoolCommand::Submit { hex } => client.call("sendrawtransaction", json!([hex]))?,
    };
    if args.client.json {
        output::json(&answer);
        return Ok(());
    }
    match args.command {
        MempoolCommand::Info => output::pairs(&[
            ("transactions", output::field(&answer, "size")),
            ("virtual size", output::bytes(output::number(&answer, "bytes"))),
            ("memory", output::bytes(output::number(&answer, "usage"))),
            (
                "lowest fee rate",
                format!("{} BTC/kvB", output::field(&answer, "mempoolminfee")),
            ),
        ]),
        MempoolCommand::List => list(&answer),
        MempoolCommand::Submit { .. } => println!("{}", answer.as_str().unwrap_or_default()),
    }
    Ok(())
}

fn list(answer: &Value) {
    let rows: Vec<Vec<String>> = answer
        .as_object()
        .into_iter()
        .flatten()
        .map(|(txid, entry)| {
            let fee = entry
                .get("fees")
                .map_or_else(|| "-".to_owned(), |fees| output::field(fees, "base"));
            vec![txid.clone(), output::field(entry, "vsize"), fee]
        })
        .collect();
    output::table(&["txid", "vsize", "fee (BTC)"], &rows);
}
