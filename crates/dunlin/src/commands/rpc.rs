//! `dunlin rpc`: any method of the JSON-RPC interface.

use serde_json::Value;

use crate::cli::RpcArgs;
use crate::client::Client;

pub(crate) fn run(args: &RpcArgs) -> anyhow::Result<()> {
    let params = args.args.iter().map(|arg| argument(arg)).collect();
    let answer = Client::find(&args.connect)?.call(&args.method, Value::Array(params))?;
    print(&answer);
    Ok(())
}

/// Text bare, nothing for null, else JSON.
pub(crate) fn print(answer: &Value) {
    match answer {
        Value::Null => {}
        Value::String(text) => println!("{text}"),
        other => crate::output::json(other),
    }
}

/// JSON where it is a number, truth value, list or object; else a plain string, so that hashes need no quotes.
pub(crate) fn argument(arg: &str) -> Value {
    match serde_json::from_str(arg) {
        Ok(Value::Number(_)) if arg.len() > 20 => Value::String(arg.to_owned()),
        Ok(value) => value,
        Err(_) => Value::String(arg.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_words_are_strings() {
        assert_eq!(argument("12"), json!(12));
        assert_eq!(argument("true"), json!(true));
        assert_eq!(argument("[1]"), json!([1]));
        assert_eq!(argument("add"), json!("add"));
        let digits = "1".repeat(64);
        assert_eq!(argument(&digits), json!(digits));
    }
}
