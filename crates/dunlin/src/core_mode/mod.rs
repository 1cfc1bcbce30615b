//! The program under the names `bitcoind` and `bitcoin-cli`: software written to start and drive Bitcoin Core starts and
//! drives this one unchanged. Options, `bitcoin.conf`, the layout of the data directory, the cookie, output and exit codes
//! are Core's (version 31); `options` says of each option what becomes of it.

mod bitcoin_cli;
mod bitcoind;
mod networks;
mod options;
mod reports;
mod settings;

use std::path::Path;
use std::process::ExitCode;

pub(crate) use bitcoind::PidFile;
use options::Program;
use settings::Settings;

/// The version of Core as which the programs introduce themselves.
const VERSION: &str = "v31.99.0";

/// Runs as Core's program when we are called by its name, such as through a link; `None` when we are not.
pub(crate) fn run_if_called() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let name = args.next()?;
    let program = match Path::new(&name).file_name()?.to_str()? {
        "bitcoind" => Program::Daemon,
        "bitcoin-cli" => Program::Cli,
        _ => return None,
    };
    let args: Result<Vec<String>, _> = args.map(std::ffi::OsString::into_string).collect();
    let Ok(args) = args else {
        eprintln!("Error: the arguments are not UTF-8.");
        return Some(ExitCode::FAILURE);
    };
    Some(match program {
        Program::Cli => bitcoin_cli::run(&args),
        Program::Daemon => match bitcoind::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("Error: {}", crate::one_line(&error));
                ExitCode::FAILURE
            }
        },
    })
}

/// Answers `-version` and `-help`.
fn print_help(program: Program, settings: &Settings) {
    let (what, usage) = match program {
        Program::Daemon => ("daemon", "bitcoind [options]"),
        Program::Cli => ("RPC client", "bitcoin-cli [options] <command> [params]"),
    };
    println!(
        "Bitcoin Core {what} version {VERSION}, as spoken by Dunlin {}",
        env!("CARGO_PKG_VERSION")
    );
    if settings.is_on("version") {
        return;
    }
    println!("\nUsage:  {usage}\n\nOptions (with one dash or two; -noNAME for -NAME=0):");
    for (name, help) in options::working(program) {
        println!("  -{name:<20} {help}");
    }
    println!("\nOther options of Core are taken in silence, taken with a warning, or refused with the reason.");
}
