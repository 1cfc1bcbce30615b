//! `dunlin.toml`: the same options as `dunlin run`, under their long names.
//!
//! The file's entries are turned into arguments that stand before those of the command line, so each option is
//! defined once and the command line wins.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::CommandFactory;

use crate::cli::Cli;

/// The name of the settings file in a data directory.
const FILE_NAME: &str = "dunlin.toml";

/// The data directory when none is named: `~/.dunlin`.
pub(crate) fn default_data_dir() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from(".dunlin"), |home| Path::new(&home).join(".dunlin"))
}

/// The program's arguments with those of the settings file put in, for `dunlin run`; others are left as they are.
///
/// # Errors
/// When the file that was asked for cannot be read, or holds something that is not an option.
pub(crate) fn arguments(args: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    if args.get(1).is_none_or(|command| command != "run") {
        return Ok(args);
    }
    let named = value_of(&args, "--config").map(PathBuf::from);
    let data_dir = value_of(&args, "--data-dir").map_or_else(default_data_dir, PathBuf::from);
    let file = named.clone().unwrap_or_else(|| data_dir.join(FILE_NAME));
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(_) if named.is_none() => return Ok(args),
        Err(error) => return Err(error).with_context(|| format!("cannot read settings file {}", file.display())),
    };
    let from_file = file_arguments(&text).with_context(|| format!("in settings file {}", file.display()))?;
    let (head, tail) = args.split_at(2);
    Ok(head
        .iter()
        .cloned()
        .chain(from_file)
        .chain(tail.iter().cloned())
        .collect())
}

/// The value of a long option as it stands on the command line, `--key VALUE` or `--key=VALUE`; the last one wins.
fn value_of(args: &[OsString], key: &str) -> Option<OsString> {
    let mut found = None;
    for (index, arg) in args.iter().enumerate() {
        if arg == key {
            found = args.get(index + 1).cloned();
        } else if let Some(value) = arg.to_str().and_then(|arg| arg.strip_prefix(key)?.strip_prefix('=')) {
            found = Some(OsStr::new(value).to_owned());
        }
    }
    found
}

fn file_arguments(text: &str) -> anyhow::Result<Vec<OsString>> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        anyhow::anyhow!("line {line}: {}", error.message())
    })?;
    let command = Cli::command();
    let run = command.find_subcommand("run").context("the run command is defined")?;
    let mut args = Vec::new();
    for (key, value) in &table {
        if key == "config" || !run.get_arguments().any(|arg| arg.get_long() == Some(key)) {
            bail!("unknown option `{key}`; `dunlin run --help` lists the options");
        }
        push(&mut args, key, value)?;
    }
    Ok(args)
}

fn push(args: &mut Vec<OsString>, key: &str, value: &toml::Value) -> anyhow::Result<()> {
    match value {
        toml::Value::Boolean(true) => args.push(format!("--{key}").into()),
        toml::Value::Boolean(false) => {}
        toml::Value::String(text) => args.push(format!("--{key}={text}").into()),
        toml::Value::Integer(number) => args.push(format!("--{key}={number}").into()),
        toml::Value::Array(values) => {
            for value in values {
                push(args, key, value)?;
            }
        }
        _ => bail!("option `{key}` takes a text, a number, true, false or a list"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn entries_become_arguments() {
        let text =
            "network = \"regtest\"\ndb-cache = 64\nno-dht = true\nadd-peer = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n";
        let args = file_arguments(text).unwrap();
        let mut words: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        words.sort_unstable();
        assert_eq!(
            words,
            [
                "--add-peer=127.0.0.1:1",
                "--add-peer=127.0.0.1:2",
                "--db-cache=64",
                "--network=regtest",
                "--no-dht"
            ]
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert!(
            file_arguments("colour = 3")
                .unwrap_err()
                .to_string()
                .contains("unknown option `colour`")
        );
        assert!(
            file_arguments("network = \n")
                .unwrap_err()
                .to_string()
                .starts_with("line 1")
        );
    }

    #[test]
    fn the_command_line_wins() {
        use clap::Parser;
        let args = [
            "dunlin",
            "run",
            "--network=signet",
            "--db-cache=64",
            "--network",
            "regtest",
        ];
        let cli = Cli::try_parse_from(args).unwrap();
        let crate::cli::Command::Run(run) = cli.command else {
            panic!("run")
        };
        assert_eq!((run.network, run.db_cache), (dunlin_chain::Network::Regtest, 64));
    }
}
