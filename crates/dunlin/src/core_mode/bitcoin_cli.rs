//! `bitcoin-cli`: calls a method, prints as Core's client does, and ends with its exit codes.

use std::io::{BufRead, Read};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use dunlin_api::rpc::{Written, written};
use serde_json::{Map, Value};

use super::options::Program;
use super::reports::Report;
use super::settings::Settings;
use crate::client::{CallError, Client};
use crate::commands::rpc::{argument, print};
use crate::daemon::data_dir::{COOKIE_FILE, network_dir};
use crate::daemon::default_rpc;

/// How long a call may take unless told otherwise, in seconds; Core's value.
const TIMEOUT_SECS: u64 = 900;
/// How often `-rpcwait` tries again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The error that says that the daemon is still starting.
const IN_WARMUP: i64 = -28;
/// The longest text read from standard input.
const MAX_STDIN: u64 = 64 << 20;

/// Runs `bitcoin-cli` with these arguments; the exit code is the number of the method's error, or 1 when there was no
/// answer.
pub(super) fn run(args: &[String]) -> ExitCode {
    match call(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", crate::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn call(args: &[String]) -> anyhow::Result<ExitCode> {
    let settings = Settings::read(Program::Cli, args)?;
    if settings.asks_for_help() {
        super::print_help(Program::Cli, &settings);
        return Ok(ExitCode::SUCCESS);
    }
    let mut stdin = std::io::stdin().lock().take(MAX_STDIN);
    let mut password = settings.text("rpcpassword").unwrap_or_default();
    if settings.is_on("stdinrpcpass") {
        password.clear();
        stdin.read_line(&mut password)?;
        password.truncate(password.trim_end_matches(['\r', '\n']).len());
    }
    let mut words = settings.words.clone();
    if settings.is_on("stdin") {
        for line in stdin.lines() {
            words.push(line?);
        }
    }
    let report = Report::asked(&settings, &words)?;
    ensure!(
        report.is_some() || !words.is_empty(),
        "too few parameters (need at least command)"
    );

    let deadline = match settings.number::<u64>("rpcwaittimeout")?.unwrap_or(0) {
        0 => None,
        seconds => Instant::now().checked_add(Duration::from_secs(seconds)),
    };
    loop {
        // The cookie is read again at each try: a daemon that has just started has just written it.
        let answer = client(&settings, &password).and_then(|client| match &report {
            Some(report) => Ok(report.make(&client, settings.network)),
            None => Ok(client.ask(&words[0], params(&words[0], &words[1..], settings.is_on("named"))?)),
        });
        let starting = match &answer {
            Err(_) | Ok(Err(CallError::NoAnswer { .. })) => true,
            Ok(Err(CallError::Method { code, .. })) => *code == IN_WARMUP,
            _ => false,
        };
        if starting && settings.is_on("rpcwait") && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            std::thread::sleep(TRY_AGAIN);
            continue;
        }
        return Ok(match answer? {
            Ok(answer) => {
                print(&answer);
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error),
        });
    }
}

fn complain(error: &CallError) -> ExitCode {
    match error {
        CallError::Method { code, message } => {
            eprintln!("error code: {code}\nerror message:\n{message}");
            // As the shell sees it: the lowest eight bits, and never a success.
            let code = u8::try_from(code.unsigned_abs() & 0xff).unwrap_or(1);
            return ExitCode::from(code.max(1));
        }
        CallError::NoAnswer { addr, error } => {
            eprintln!("error: Could not connect to the server {addr} ({error}); is the daemon running at this port?");
        }
        CallError::Refused { .. } => eprintln!("error: Authorization failed: Incorrect rpcuser or rpcpassword"),
        CallError::Foreign { addr } => eprintln!("error: what answers at {addr} does not speak JSON-RPC"),
    }
    ExitCode::FAILURE
}

/// The way to the daemon that the settings describe.
fn client(settings: &Settings, password: &str) -> anyhow::Result<Client> {
    let host = settings.text("rpcconnect").unwrap_or_else(|| "127.0.0.1".to_owned());
    // A port in the host counts unless one is given by itself; an address of six colons is not a host with a port.
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let port = port.parse().ok().context("Invalid port provided in -rpcconnect")?;
            (name.to_owned(), Some(port))
        }
        _ if host.contains(':') && !host.starts_with('[') => (format!("[{host}]"), None),
        _ => (host, None),
    };
    let port: u16 = settings
        .number("rpcport")?
        .or(port)
        .unwrap_or_else(|| default_rpc(settings.network).port());
    let login = if password.is_empty() {
        let dir = network_dir(&settings.data_dir, settings.network);
        let file = settings.path("rpccookiefile", &dir, COOKIE_FILE);
        let cookie = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        cookie.with_context(|| {
            format!(
                "Could not connect to the server {host}:{port}: there is no cookie of a running daemon in {}, and no \
                 -rpcpassword is set",
                dir.display()
            )
        })?
    } else {
        format!("{}:{password}", settings.text("rpcuser").unwrap_or_default())
    };
    let timeout = match settings.number("rpcclienttimeout")?.unwrap_or(TIMEOUT_SECS) {
        0 => None,
        seconds => Some(Duration::from_secs(seconds)),
    };
    Ok(Client::at(format!("{host}:{port}"), login.trim(), timeout))
}

/// The arguments of a method; with `named`, those with an equals sign by their name and the others in order.
fn params(method: &str, words: &[String], named: bool) -> anyhow::Result<Value> {
    if !named {
        let numbered = words.iter().enumerate();
        return numbered
            .map(|(position, word)| value(word, written(method, Some(position), None)))
            .collect();
    }
    let (mut by_name, mut by_place) = (Map::new(), Vec::new());
    for word in words {
        match word.split_once('=') {
            Some((name, value)) => {
                let twice = by_name.insert(name.to_owned(), self::value(value, written(method, None, Some(name)))?);
                ensure!(twice.is_none(), "the argument {name} is given twice");
            }
            None => by_place.push(value(word, written(method, Some(by_place.len()), None))?),
        }
    }
    if !by_place.is_empty() {
        ensure!(
            !by_name.contains_key("args"),
            "arguments stand both in args and by themselves"
        );
        by_name.insert("args".to_owned(), Value::Array(by_place));
    }
    Ok(Value::Object(by_name))
}

/// An argument as the method takes it.
fn value(word: &str, written: Written) -> anyhow::Result<Value> {
    match written {
        Written::Bare => Ok(word.into()),
        Written::Either => Ok(argument(word)),
        Written::Json => serde_json::from_str(word).map_err(|_| anyhow!("Error parsing JSON: {word}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_by_name_and_by_place() {
        let words = ["height=7", "verbose=false", "00ff"].map(str::to_owned);
        let want = json!({"height": 7, "verbose": false, "args": ["00ff"]});
        assert_eq!(params("other", &words, true).unwrap(), want);
        assert_eq!(
            params("other", &words, false).unwrap(),
            json!(["height=7", "verbose=false", "00ff"])
        );
        assert!(params("other", &["a=1", "a=2"].map(str::to_owned), true).is_err());
    }

    #[test]
    fn arguments_are_read_as_the_method_takes_them() {
        let one = |method: &str, word: &str| params(method, &[word.to_owned()], false);
        assert_eq!(one("getblockhash", "7").unwrap(), json!([7]));
        assert_eq!(
            one("getblockhash", "seven").unwrap_err().to_string(),
            "Error parsing JSON: seven"
        );
        assert_eq!(one("validateaddress", "7").unwrap(), json!(["7"]));
        assert_eq!(one("getblockstats", "7").unwrap(), json!([7]));
        assert_eq!(one("getblockstats", "00ff").unwrap(), json!(["00ff"]));
        let named = params("getblockhash", &["height=seven".to_owned()], true);
        assert_eq!(named.unwrap_err().to_string(), "Error parsing JSON: seven");
    }
}
