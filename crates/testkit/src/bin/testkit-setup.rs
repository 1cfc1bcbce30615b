//! Prepares every real peer that tests run against, with one line for each; ends with 1 when one cannot be had.

use anyhow::Result;
use dunlin_testkit::{core_build, setup};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

type Step = (&'static str, fn() -> Result<PathBuf>);

fn main() -> ExitCode {
    let steps: [Step; 6] = [
        ("bitcoind", core_build::bitcoind),
        ("libtorrent", setup::python),
        ("zeromq", setup::python_with_zmq),
        ("transmission", setup::transmission),
        ("chromium", setup::chromium),
        ("chromedriver", setup::chromedriver),
    ];
    let mut failed = false;
    for (name, prepare) in steps {
        let started = Instant::now();
        match prepare().and_then(|path| Ok((setup::version(&path)?, path))) {
            Ok((version, path)) => {
                let seconds = started.elapsed().as_secs();
                println!("{name:<13} ready in {seconds:>3} s  {} ({version})", path.display());
            }
            Err(error) => {
                failed = true;
                eprintln!("{name:<13} MISSING: {error:#}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
