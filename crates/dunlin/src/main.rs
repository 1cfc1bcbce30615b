//! The program: command line and daemon. The only place where the parts are put together.

mod cli;
mod client;
mod commands;
mod config;
mod core_mode;
mod daemon;
mod flock;
mod output;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};

/// Blocks and coins are many small pieces of memory that threads hand to each other: this allocator takes half the time
/// of the system's for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for bad usage, by contract.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(code) = core_mode::run_if_called() {
        return code;
    }
    let args = match config::arguments(std::env::args_os().collect()) {
        Ok(args) => args,
        Err(error) => return fail(&error, BAD_USAGE),
    };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            match error.kind() {
                // What a person gets who asks for help, or who names no command.
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => drop(error.print()),
                _ => eprintln!("dunlin: {}", mistake(&error.to_string())),
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_USAGE));
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// The mistake in one line, from clap's text: what stands before the usage.
fn mistake(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().skip_while(|word| *word == "error:").collect();
    format!("{}; --help shows what is possible", words.join(" "))
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(args) => daemon::run(*args, None),
        Command::Flock(args) => flock::run(&args),
        Command::Torrent(args) => commands::torrent::run(args),
        Command::Status(args) => commands::status::status(&args),
        Command::Stop(args) => commands::status::stop(&args),
        Command::Chain(args) => commands::chain::run(args),
        Command::Mempool(args) => commands::mempool::run(args),
        Command::Peer(args) => commands::peer::run(args),
        Command::Mine(args) => commands::mine::run(&args),
        Command::Rpc(args) => commands::rpc::run(&args),
    }
}

/// One clear line on standard error.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("dunlin: {}", one_line(error));
    ExitCode::from(code)
}

/// The chain of causes in one line, each said once (many libraries repeat their cause).
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string().replace('\n', " ")) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}
